"""Which images there are, and which of them have the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.store import Store
from retrieval.vectors.sorted_ids import places

_Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Census:
    """Images of one version of a collection.

    Attributes:
        ids: int64 ``[n]``, ascending.
        contents: int64 ``[n]``: what an image's bytes are called: the lowest id of those that have
            them.
    """

    ids: _Ids
    contents: _Ids

    def content_of(self, ids: ArrayLike) -> _Ids:
        """The content of each image; -1 for one that is not among them."""
        at = places(self.ids, np.asarray(ids, dtype=np.int64))
        return np.where(at >= 0, self.contents[at], -1) if len(self.ids) else at

    def images_of(self, contents: ArrayLike) -> _Ids:
        """Ids of all images of ``contents``, ascending."""
        return self.ids[np.isin(self.contents, contents)]

    @property
    def repeated(self) -> _Ids:
        """Contents that several images have, ascending."""
        found, counts = np.unique(self.contents, return_counts=True)
        return found[counts > 1]


def census(store: Store, where: str | None = None) -> Census:
    """Count the images for which ``where`` holds, and tell which have the same bytes.

    Raises:
        FilterError: if ``where`` does not parse or fit the columns.
    """
    rows = store.known().select(["image_id", "content_hash"]).sort_by("image_id")
    ids, hashes = rows["image_id"].to_numpy(), rows["content_hash"]
    import pyarrow.compute as pc

    hashes = pc.if_else(pc.equal(hashes, ""), None, hashes)  # nobody knows the bytes of either
    coded = hashes.combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    codes[codes < 0] = len(coded.dictionary) + np.arange(np.count_nonzero(codes < 0))
    if where is not None:
        kept = places(store.ids(where), ids) >= 0
        ids, codes = ids[kept], codes[kept]
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return Census(ids, ids[first][inverse])


def shared(left: Store, right: Store, known: tuple[Census, Census]) -> list[tuple[int, int]]:
    """Contents of two collections that are the same bytes: what each of the two calls them.

    Args:
        left: the one store.
        right: the other.
        known: the images of each that take part.
    """
    first, second = (_by_hash(*side) for side in zip((left, right), known, strict=True))
    return [(content, second[key]) for key, content in first.items() if key in second]


def _by_hash(store: Store, known: Census) -> dict[str, int]:
    rows = store.known().select(["image_id", "content_hash"])
    contents = known.content_of(rows["image_id"].to_numpy()).tolist()
    named = zip(rows["content_hash"].to_pylist(), contents, strict=True)
    return dict(sorted((key, content) for key, content in named if key and content >= 0))
