"""Whether new pictures are already there, in one collection or in several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.errors import QueryError
from retrieval.images import ImageInput, content_hash, decode, load
from retrieval.images.thumbnails import thumbnail
from retrieval.query.duplicates.comparer import Comparer
from retrieval.query.duplicates.grouping import SAME_BYTES
from retrieval.query.duplicates.looks import look
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.query.indexed import Indexed
from retrieval.types import Embeddings, ImageRecord
from retrieval.vectors.sorted_ids import places

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Match:
    """An image that is the same as a new picture.

    Attributes:
        collection: path or URI of where it is.
        image: what is known of it.
        score: exact cosine; 1 for the same bytes.
        kind: tier of the two.
        why: what they have in common, in words.
    """

    collection: str
    image: ImageRecord
    score: float
    kind: Tier
    why: str


@dataclass(frozen=True, slots=True)
class Admission:
    """What is already there of a new picture.

    Attributes:
        matches: the strongest tier first, then the highest score; of a picture whose bytes are
            there only those.
    """

    matches: tuple[Match, ...]

    @property
    def found(self) -> bool:
        """Whether it is already there."""
        return bool(self.matches)

    @property
    def best(self) -> Match | None:
        """The strongest match."""
        return self.matches[0] if self.matches else None


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A new picture.

    Attributes:
        picture: RGB, upright.
        content_hash: of its bytes; None where it has none.
    """

    picture: Image.Image
    content_hash: str | None


def newcomer(source: ImageInput) -> Newcomer:
    """Read a new picture.

    Raises:
        ImageError: if it is a picture that cannot or must not be decoded.
        QueryError: if it is not a picture at all.
    """
    picture = load(source, max_pixels=settings.load().max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return Newcomer(picture, content_hash(bytes(source)))
    if isinstance(source, str | os.PathLike):
        try:
            return Newcomer(picture, content_hash(Path(source).read_bytes()))
        except OSError as error:
            raise QueryError(f"cannot read {os.fspath(source)!r}: {error}") from error
    return Newcomer(picture, None)


def same_bytes(collection: Indexed, new: Newcomer) -> list[Match]:
    """The images of a collection that have the bytes of a new picture."""
    if new.content_hash is None:
        return []
    store = collection.store.again()
    found = store.records(store.find_hash(new.content_hash))
    return [Match(collection.uri, image, 1.0, "exact", SAME_BYTES) for image in found]


def encoded(encoder: Encoder, news: Sequence[Newcomer]) -> Embeddings:
    """float32 ``[n, dim]``: the vectors of new pictures."""
    parts = [
        encoder.encode_images([new.picture for new in news[at : at + _BATCH]])
        for at in range(0, len(news), _BATCH)
    ]
    return np.concatenate(parts)


def alike(
    collection: Indexed,
    space: str,
    threshold: float,
    news: Sequence[Newcomer],
    vectors: Embeddings,
    tiers: Sequence[Tier],
) -> list[list[Match]]:
    """The images of a collection that new pictures are the same as, beyond their bytes.

    Args:
        collection: where to look.
        space: name of the space of ``vectors``.
        threshold: cosine from which on an image is compared.
        news: pictures ``[n]``.
        vectors: theirs, ``[n, dim]``.
        tiers: those that count.
    """
    near = collection.vectors(space).within(vectors, threshold)
    store = collection.store.again()
    there = places(store.ids(), near.ids) >= 0
    which = np.repeat(np.arange(len(news)), np.diff(near.offsets))[there]
    ids, scores = near.ids[there], near.scores[there]
    looks = [look(decode(thumbnail(new.picture)).image) for new in news]
    evidence = Comparer(store).against([looks[i] for i in which.tolist()], ids)
    kept = [at for at, each in enumerate(evidence) if each.tier in tiers]
    found: list[list[Match]] = [[] for _ in news]
    for at, image in zip(kept, store.records(ids[kept]), strict=True):
        told = evidence[at]
        match = Match(collection.uri, image, float(scores[at]), told.tier, told.why)
        found[int(which[at])].append(match)
    return found


def admission(matches: Sequence[Match]) -> Admission:
    """Matches in their order."""
    order = sorted(matches, key=lambda each: (TIERS.index(each.kind), -each.score, each.image.uri))
    return Admission(tuple(order))
