"""What there is to distil on: the photos below some folders, and what people say of them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from indexers.distill.photos import Photo
from indexers.distill.texts import Caption, texts_to_learn
from indexers.labels import Labels
from indexers.sources import FolderSource, FoundFile
from retrieval.errors import SourceError

_FEWEST_PHOTOS, _FEWEST_HELD_OUT = 20, 2
_MOST_HELD_OUT = 1_000
_MOST_UNSEEN_TEXTS = 2_000


@dataclass(frozen=True, slots=True)
class Unseen:
    """A text that is held out.

    Attributes:
        text: what it says.
        photo: index of the held-out photo that it is about; None if it is about no single one.
    """

    text: str
    photo: int | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What to learn from, and what to compare student and teacher on.

    Attributes:
        photos: every photo once, in a fixed order.
        learn: distinct texts for the text side.
        unseen: texts that are not among them: captions of held-out photos, or a sample of plain
            words where there are none.
    """

    photos: list[Photo]
    learn: list[str]
    unseen: list[Unseen]


def gather(
    sources: Sequence[FolderSource],
    labels: Labels | None,
    captions: Sequence[Caption],
    seed: int,
    *,
    with_texts: bool,
) -> Material:
    """List photos and texts, and decide what is held out.

    Photos whose ``split``, in the labels or the captions, is something else than ``train``; if no
    split says so, a random tenth, at most 1,000. With a photo its captions are held out.

    Raises:
        SourceError: if there are too few photos to train on.
    """
    chance = random.Random(seed)
    photos = [_photo(file, labels) for file in _files(sources)]
    about = _photos_of(captions, photos)
    held_out = {at for at, photo in enumerate(photos) if photo.held_out}
    said = zip(captions, about, strict=True)
    held_out |= {at for caption, at in said if caption.held_out and at is not None}
    if not held_out:
        count = min(max(len(photos) // 10, _FEWEST_HELD_OUT), _MOST_HELD_OUT, len(photos))
        held_out = set(chance.sample(range(len(photos)), count))
    check_enough(len(photos) - len(held_out), len(held_out))
    photos = [replace(photo, held_out=at in held_out) for at, photo in enumerate(photos)]
    if not with_texts:
        return Material(photos, [], [])
    said = zip(captions, about, strict=True)
    unseen = [Unseen(caption.text, at) for caption, at in said if at in held_out]
    said = zip(captions, about, strict=True)
    seen = [c.text for c, at in said if not c.held_out and at not in held_out]
    learn = texts_to_learn(seen, {photo.label for photo in photos if photo.label}, seed)
    if not unseen:
        unseen = [Unseen(text) for text in chance.sample(learn, len(learn) // 20)]
    if len(unseen) > _MOST_UNSEEN_TEXTS:
        unseen = chance.sample(unseen, _MOST_UNSEEN_TEXTS)
    out = {each.text for each in unseen}
    return Material(photos, [text for text in learn if text not in out], unseen)


def check_enough(learn: int, held_out: int) -> None:
    """Refuse to train on next to nothing.

    Raises:
        SourceError: if there are too few photos.
    """
    if learn < _FEWEST_PHOTOS or held_out < _FEWEST_HELD_OUT:
        raise SourceError(
            f"there are {learn} photos to learn from and {held_out} held out to compare on; "
            f"distilling needs {_FEWEST_PHOTOS} and {_FEWEST_HELD_OUT}, and thousands to be good"
        )


def _photos_of(captions: Sequence[Caption], photos: Sequence[Photo]) -> list[int | None]:
    """The photo of every caption, by path or else by a base name that only one photo has."""
    by_path = {photo.path: at for at, photo in enumerate(photos)}
    by_name: dict[str, int | None] = {}
    for at, photo in enumerate(photos):
        name = os.path.basename(photo.path)
        by_name[name] = None if name in by_name else at
    names = [os.path.basename(caption.path) for caption in captions]
    return [
        by_path.get(caption.path, by_name.get(name))
        for caption, name in zip(captions, names, strict=True)
    ]


def _files(sources: Sequence[FolderSource]) -> Iterator[FoundFile]:
    """Every file once."""
    seen: set[str] = set()
    for source in sources:
        for found in source:
            if isinstance(found, FoundFile) and found.uri not in seen:
                seen.add(found.uri)
                yield found


def _photo(file: FoundFile, labels: Labels | None) -> Photo:
    facts = labels.facts(file.path) if labels else {}
    label, split = facts.get("label"), facts.get("split")
    return Photo(
        path=file.path,
        label=None if label is None else str(label),
        held_out=bool(split) and split != "train",
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
    )
