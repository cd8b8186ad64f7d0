"""The distinct pictures of a collection: images of the same bytes are one, and compared once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CollectionError, DamagedIndex, VersionGone
from retrieval.query.indexed import Indexed
from retrieval.query.space_vectors import SpaceVectors
from retrieval.query.view import View
from retrieval.store import Store
from retrieval.vectors.base import Positions

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
Bytes = NDArray[np.uint8]

_TRIES = 8
_BLOCK_ROWS = 8192
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some rows of a space in an order of one's own, as :class:`~retrieval.vectors.base.Rows`."""

    vectors: SpaceVectors
    at: Positions

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""
        return len(self.at), self.vectors.shape[1]

    def blocks(self, size: int, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """float32 ``[≤ size, dim]``: all rows from ``start`` on, in order."""
        for begin in range(start, len(self.at), size):
            yield self.vectors.take(self.at[begin : begin + size])

    def take(self, positions: Positions) -> NDArray[np.float32]:
        """float32 ``[n, dim]``: the rows at ``positions``."""
        return self.vectors.take(self.at[positions])


@dataclass(frozen=True, slots=True)
class Contents:
    """All distinct contents of a collection at one version, in the order of their lowest ids.

    Attributes:
        store: a handle at that version, of nobody else.
        view: of the space, at that version.
        vectors: those of the view.
        hashes: uint8 ``[n, 16]``: of the bytes of each.
        ids: int64 ``[n]``: the lowest id of the images of those bytes, among those that are asked
            for; -1 where none is.
        rows: int64 ``[n]``: which of ``vectors`` is its; -1 where it has none yet.
    """

    store: Store
    view: View
    vectors: SpaceVectors
    hashes: Bytes
    ids: NDArray[np.int64]
    rows: Positions

    @property
    def joined(self) -> Positions:
        """Contents that are asked for and have a vector."""
        return np.flatnonzero((self.ids >= 0) & (self.rows >= 0))

    def chosen(self, which: Positions) -> Chosen:
        """The vectors of some contents."""
        return Chosen(self.vectors, self.rows[which])

    def keys(self, which: Positions) -> Bytes:
        """uint8 ``[m, 24]``: what some contents are known by: their bytes, and their vector.

        The same bytes may get another vector, as from another runtime. It is told by a multilinear
        hash (Lemire and Kaser, Strongly universal string hashing is fast, 2014).
        """
        dim = self.vectors.shape[1]
        odd = np.random.default_rng(0).integers(0, 1 << 63, dim, dtype=np.uint64) * 2 + 1
        marks = np.empty(len(which), dtype="<u8")
        for at in range(0, len(which), _BLOCK_ROWS):
            some = self.vectors.take(self.rows[which[at : at + _BLOCK_ROWS]])
            marks[at : at + _BLOCK_ROWS] = some.view(np.uint32).astype(np.uint64) @ odd
        return np.hstack([self.hashes[which], marks.view(np.uint8).reshape(-1, 8)])


def with_contents(
    collections: Sequence[Indexed], space: str, where: str | None, work: Callable[..., T]
) -> T:
    """What ``work`` makes of the contents of one collection, or of several.

    It begins anew where files turn out to be damaged, without them, or another process purged.

    Args:
        collections: whose newest versions are read.
        space: name of the space.
        where: filter that an image of a content must pass; None for all.
        work: is given the :class:`Contents` of each.

    Raises:
        UnknownSpace: if there is no such space.
        FilterError: if ``where`` does not parse or fit the columns.
        VectorIndexError: if the vectors are too many for memory and there is no index to map them.
    """
    for last in (*[False] * (_TRIES - 1), True):
        sides = [_read(each, space, where) for each in collections]
        try:
            return work(*sides)
        except DamagedIndex as error:
            if last:
                raise
            for collection, side in zip(collections, sides, strict=True):
                damage = error if len(sides) == 1 else _damage(side.view)
                if damage is not None:
                    with collection._lock:
                        collection._searcher.views.distrust(side.view, damage)
        except VersionGone:
            if last:
                raise
    raise AssertionError("the last try answers or raises")


def _damage(view: View) -> DamagedIndex | None:
    """What is wrong with the vectors that a view stands on."""
    try:
        if view.base is not None:
            view.base.rows.check()
    except DamagedIndex as error:
        return error
    return None


def hashes_of(known: pa.Table) -> Bytes:
    """uint8 ``[n, 16]``: of each row of :meth:`Store.known`; without one, of its id."""
    texts = known["content_hash"].to_pylist()
    ids = known["image_id"].to_pylist()
    found = b"".join([_hash(text or f"image {i}") for text, i in zip(texts, ids, strict=True)])
    return np.frombuffer(found, np.uint8).reshape(-1, _HASH_BYTES)


def as_arrow(rows: Bytes) -> pa.FixedSizeBinaryArray:
    """Rows of bytes ``[n, size]`` as an Arrow array."""
    import pyarrow as pa

    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, data])


def from_arrow(array: pa.FixedSizeBinaryArray) -> Bytes:
    """Rows of bytes ``[n, size]`` that :func:`as_arrow` made."""
    size, data = array.type.byte_width, array.buffers()[1]
    at = array.offset * size
    rows = np.frombuffer(data or b"", np.uint8)[at : at + len(array) * size]
    return rows.reshape(-1, size)


def positions_in(known: Bytes, asked: Bytes) -> Positions:
    """Where each of the rows ``asked`` is among those ``known``; -1 where it is not."""
    import pyarrow.compute as pc

    found = pc.index_in(as_arrow(asked), value_set=as_arrow(known))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def _read(collection: Indexed, space: str, where: str | None) -> Contents:
    for _ in range(_TRIES):
        with collection._lock:
            view = collection._view(space)
        store = collection.store.again()
        if store.version == view.version:
            return _collapsed(store, view, where)
    raise CollectionError(f"{collection.uri} is written to without a pause: try again after that")


def _collapsed(store: Store, view: View, where: str | None) -> Contents:
    known, vectors = store.known().sort_by("image_id"), SpaceVectors(view)
    ids, hashes = known["image_id"].to_numpy(), hashes_of(known)
    encoded = as_arrow(hashes).dictionary_encode()  # numbered as they appear: by lowest id
    content = encoded.indices.to_numpy()
    at = vectors.positions(ids)
    asked = np.ones(len(ids), bool) if where is None else np.isin(ids, store.ids(where))
    n = len(encoded.dictionary)
    firsts = _lowest(n, content, np.arange(len(ids)), np.ones(len(ids), bool))
    return Contents(
        store=store,
        view=view,
        vectors=vectors,
        hashes=hashes[firsts],
        ids=_lowest(n, content, ids, asked),
        rows=_lowest(n, content, at, at >= 0),
    )


def _lowest(
    n: int, content: NDArray[np.integer], values: NDArray[np.int64], real: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Of each content the value of its first real image; -1 where there is none."""
    out = np.full(n, -1, dtype=np.int64)
    backwards = np.flatnonzero(real)[::-1]  # of several the one that is written last stays
    out[content[backwards]] = values[backwards]
    return out


def _hash(text: str) -> bytes:
    try:
        if len(raw := bytes.fromhex(text)) == _HASH_BYTES:
            return raw
    except ValueError:
        pass
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).digest()
