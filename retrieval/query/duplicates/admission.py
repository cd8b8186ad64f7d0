"""Whether new pictures are already there, in one collection or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.errors import ImageError, QueryError
from retrieval.images import ImageInput, content_hash, decode, load
from retrieval.images.inputs import read_bytes
from retrieval.images.thumbnails import thumbnail
from retrieval.query.duplicates.comparer import Comparer
from retrieval.query.duplicates.grouping import SAME_BYTES
from retrieval.query.duplicates.looks import Look, look
from retrieval.query.duplicates.tiers import TIERS, Tier
from retrieval.query.indexed import Indexed
from retrieval.types import ImageRecord
from retrieval.vectors.products import cosines
from retrieval.vectors.sorted_ids import places

if TYPE_CHECKING:
    from retrieval.store import Store

_BATCH = 8
"""Pictures that are held at a time, each as large as it is."""
_SLACK = 1e-5
"""By how much a float32 score may be below the exact cosine."""


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
        error: why the picture could not be compared; None if it was.
    """

    matches: tuple[Match, ...]
    error: str | None = None

    @property
    def found(self) -> bool:
        """Whether it is already there; of a picture with an ``error`` nobody knows."""
        return bool(self.matches)

    @property
    def best(self) -> Match | None:
        """The strongest match."""
        return self.matches[0] if self.matches else None


@dataclass(slots=True)
class Newcomer:
    """What is kept of a new picture, which may be large, until all are answered.

    Attributes:
        matches: what was found by now.
        error: why it could not be read; None if it could.
        vector: float32 ``[dim]``, of a picture that has to be compared; else None.
        look: of the same.
    """

    matches: list[Match]
    error: str | None = None
    vector: NDArray[np.float32] | None = None
    look: Look | None = None

    def admission(self) -> Admission:
        """The answer, in its order."""
        order = sorted(
            self.matches, key=lambda each: (TIERS.index(each.kind), -each.score, each.image.uri)
        )
        return Admission(tuple(order), self.error)


def newcomers(
    images: Sequence[ImageInput],
    by_bytes: Sequence[Indexed],
    encoder: Callable[[], Encoder] | None,
) -> list[Newcomer]:
    """Read new pictures, a few at a time, and say of which the bytes are there.

    Those whose bytes are there are not decoded; of all others a vector and a look are taken.

    Args:
        images: the pictures.
        by_bytes: where to look for their bytes.
        encoder: asked for when the first picture needs a vector; None if none does.
    """
    stores = [(place.uri, place.store.again()) for place in by_bytes]
    found: list[Newcomer] = []
    with ThreadPoolExecutor(settings.cores(), thread_name_prefix="check") as pool:
        for at in range(0, len(images), _BATCH):
            read = [_read(image, stores) for image in images[at : at + _BATCH]]
            found += [new for new, _ in read]
            left = [(new, source) for new, source in read if source is not None]
            if encoder is not None and left:
                _see(left, encoder, pool)
    return found


def alike(
    collection: Indexed,
    space: str,
    threshold: float,
    news: Sequence[Newcomer],
    tiers: Sequence[Tier],
) -> None:
    """Find the images of a collection that new pictures are the same as, beyond their bytes.

    Args:
        collection: where to look.
        space: name of the space of the newcomers' vectors.
        threshold: cosine from which on an image is compared.
        news: pictures that have a vector and a look; they are given their matches.
        tiers: those that count.
    """
    vectors = np.stack([new.vector for new in news if new.vector is not None])
    rows = collection.vectors(space)
    near = rows.within(vectors, threshold - _SLACK)
    which = np.repeat(np.arange(len(news)), np.diff(near.offsets))
    scores = cosines(vectors[which], rows.take(rows.positions(near.ids)))
    store = collection.store.again()
    kept = (places(store.ids(), near.ids) >= 0) & (scores >= np.float32(threshold))
    which, ids, scores = which[kept], near.ids[kept], scores[kept]
    looks = [seen for i in which.tolist() if (seen := news[i].look) is not None]
    evidence = Comparer(store).against(looks, ids)
    counts = [at for at, each in enumerate(evidence) if each.tier in tiers]
    for at, image in zip(counts, store.records(ids[counts]), strict=True):
        told = evidence[at]
        match = Match(collection.uri, image, float(scores[at]), told.tier, told.why)
        news[int(which[at])].matches.append(match)


def _read(
    source: ImageInput, stores: Sequence[tuple[str, Store]]
) -> tuple[Newcomer, ImageInput | None]:
    """A new picture by its bytes, and what to decode if they are not there."""
    new = Newcomer([])
    try:
        if isinstance(source, str | os.PathLike):
            source = read_bytes(source)
        if isinstance(source, bytes | bytearray | memoryview):
            source = bytes(source)
            known = content_hash(source)
            for uri, store in stores:
                for image in store.records(store.find_hash(known)):
                    new.matches.append(Match(uri, image, 1.0, "exact", SAME_BYTES))
    except QueryError as error:
        new.error = str(error)
    return new, None if new.matches or new.error else source


def _see(
    left: Sequence[tuple[Newcomer, ImageInput]],
    encoder: Callable[[], Encoder],
    pool: ThreadPoolExecutor,
) -> None:
    """Decode some pictures, and keep a vector and a look of each."""
    decoded = [(new, picture) for new, picture in pool.map(_decoded, left) if picture is not None]
    if not decoded:
        return
    looks = pool.map(_looked, [picture for _, picture in decoded])
    vectors = encoder().encode_images([picture for _, picture in decoded])
    for (new, _), vector, seen in zip(decoded, vectors, looks, strict=True):
        new.vector, new.look = vector, seen


def _decoded(one: tuple[Newcomer, ImageInput]) -> tuple[Newcomer, Image.Image | None]:
    new, source = one
    try:
        return new, load(source, max_pixels=settings.load().max_pixels)
    except (ImageError, QueryError) as error:
        new.error = str(error)
        return new, None


def _looked(picture: Image.Image) -> Look:
    """As the collection would see it: by its thumbnail."""
    return look(decode(thumbnail(picture)).image)
