"""All vectors of a space at one version: range queries, the space against itself, its graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.view import View
from retrieval.types import Embeddings, Neighbors
from retrieval.vectors import Block
from retrieval.vectors.base import Positions
from retrieval.vectors.graph import knn_graph
from retrieval.vectors.join import pairs_above
from retrieval.vectors.sorted_ids import places
from retrieval.vectors.tiles import Tell

_SCAN_BYTES = 32 << 20
_BLOCK_ROWS = 8192
_Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Query, image and score of each match."""


@dataclass(frozen=True, slots=True)
class Matches:
    """All rows that reach a score, for a batch of queries.

    Attributes:
        offsets: int64 ``[q + 1]``: the matches of query i are those from ``offsets[i]`` up to
            ``offsets[i + 1]``.
        ids: int64 ``[m]``, best first within a query, equal scores in the order of their ids.
        scores: float32 ``[m]``, exact cosines.
        complete: whether no row that reaches the score is missing.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    complete: bool


class SpaceVectors:
    """The vectors of one space at one version; writes to the collection do not change it.

    They lie in memory or in mapped files, so that there may be more of them than memory.

    Attributes:
        version: of the collection.
        ids: int64 ``[n]``: the image of each row.
    """

    def __init__(self, view: View) -> None:
        """All rows of ``view``."""
        self.version = view.version
        self._base = None if view.base is None else view.base.rows
        self._kept: Positions | None = None
        known = np.empty(0, np.int64) if view.base is None else view.base.ids
        if view.dead is not None and view.dead.any():
            self._kept = np.flatnonzero(~view.dead)
            known = known[self._kept]
        self._fresh = np.asarray(view.fresh[1], dtype=np.float32)
        self._indexed = len(known)
        self.ids = np.concatenate([known, view.fresh[0]])
        self._sorted: tuple[Positions, NDArray[np.int64]] | None = None  # once it is asked for

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""
        return len(self.ids), self._fresh.shape[1]

    def blocks(self, size: int, start: int = 0) -> Iterator[Embeddings]:
        """float32 ``[≤ size, dim]``: all rows from ``start`` on, in order.

        Raises:
            VectorIndexError: if the files turn out to be damaged.
        """
        if self._base is not None and start < self._indexed:
            if self._kept is None:
                yield from self._base.blocks(size, start)
            else:
                for at in range(start, self._indexed, size):
                    yield self._base.take(self._kept[at : at + size])
        for at in range(max(0, start - self._indexed), len(self._fresh), size):
            yield self._fresh[at : at + size]

    def named_blocks(self, size: int) -> Iterator[Block]:
        """:meth:`blocks`, each with the ids of its images."""
        at = 0
        for block in self.blocks(size):
            yield self.ids[at : at + len(block)], block
            at += len(block)

    def take(self, positions: Positions) -> Embeddings:
        """float32 ``[n, dim]``: the rows at ``positions``.

        Raises:
            VectorIndexError: if the files turn out to be damaged.
        """
        old = positions < self._indexed
        out = np.empty((len(positions), self.shape[1]), dtype=np.float32)
        if self._base is not None and old.any():
            at = positions[old]
            out[old] = self._base.take(at if self._kept is None else self._kept[at])
        out[~old] = self._fresh[positions[~old] - self._indexed]
        return out

    def positions(self, ids: NDArray[np.int64]) -> Positions:
        """int64 ``[n]``: the row of each image; -1 for one that has no vector here."""
        if self._sorted is None:
            order = np.argsort(self.ids, kind="stable")
            self._sorted = order, self.ids[order]
        order, known = self._sorted
        at = places(known, ids)
        found = at >= 0
        at[found] = order[at[found]]
        return at

    def within(self, queries: Embeddings, threshold: float, *, limit: int | None = None) -> Matches:
        """Every row whose cosine to a query is at least ``threshold``, by comparing all.

        Args:
            queries: float32 ``[q, dim]``, unit rows.
            threshold: in [-1, 1].
            limit: most matches of one query; the best ones stay. None for no limit.

        Returns:
            The matches; complete unless the limit cut some off.

        Raises:
            QueryError: if the shape does not fit, or the limit is below 1.
        """
        if queries.ndim != 2 or queries.shape[1] != self.shape[1]:
            raise QueryError(f"queries have shape {list(queries.shape)}, not [q, {self.shape[1]}]")
        if limit is not None and limit < 1:
            raise QueryError(f"a limit is at least 1, not {limit}")
        (which, ids, scores), complete = self._reached(queries, threshold, limit)
        counts = np.bincount(which, minlength=len(queries))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Matches(offsets, ids, scores, complete)

    def pairs(
        self,
        threshold: float,
        *,
        memory_bytes: int = 256 << 20,
        start: int = 0,
        tell: Tell | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Every pair of images whose cosine is at least ``threshold``, once; exact.

        Args:
            threshold: cosine from which on a pair counts.
            memory_bytes: about how much is held at a time, besides what the caller keeps.
            start: only pairs of which one row is at ``start`` or after it: new against all.
            tell: called with how many rows are done, and n; ``start`` goes on from there.

        Yields:
            Two int64 ``[m]`` of ids and float32 scores ``[m]``, in no order.
        """
        pairs = pairs_above(self, threshold, memory_bytes=memory_bytes, start=start, tell=tell)
        for a, b, scores in pairs:
            yield self.ids[a], self.ids[b], scores

    def knn_graph(
        self, k: int, *, memory_bytes: int = 256 << 20, tell: Tell | None = None
    ) -> Neighbors:
        """The k nearest other images of every image, exact; rows in the order of ``ids``.

        Args:
            k: neighbours of each, at least 1.
            memory_bytes: about how much is held at a time, besides the result.
            tell: called with the number of finished rows, and n.

        Raises:
            QueryError: if k < 1.
        """
        if k < 1:
            raise QueryError(f"k is at least 1, not {k}")
        at, scores = knn_graph(self, k, memory_bytes=memory_bytes, tell=tell)
        ids = np.full(at.shape, -1, dtype=np.int64)
        ids[at >= 0] = self.ids[at[at >= 0]]
        return Neighbors(ids, scores)

    def _reached(
        self, queries: Embeddings, threshold: float, limit: int | None
    ) -> tuple[_Found, bool]:
        """The matches, sorted, and whether they are all; at most ``limit`` a query are held."""
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        complete, bar = True, np.full(len(queries), threshold, np.float32)
        step = max(1, min(_BLOCK_ROWS, _SCAN_BYTES // (4 * max(1, len(queries)))))
        for named, block in self.named_blocks(step):
            scores = queries @ block.T
            query, row = np.nonzero(scores >= bar[:, None])
            found.append((query, named[row], np.clip(scores[query, row], -1, 1)))
            if limit is not None:
                best, whole = _best(_together(found), limit)
                below = complete and len(query) < np.count_nonzero(scores >= threshold)
                found, complete = [best], complete and whole and not below
                ends = np.cumsum(np.bincount(best[0], minlength=len(queries)))
                full = np.diff(ends, prepend=0) == limit
                bar[full] = best[2][ends[full] - 1]
        found = [_together(found)]  # lets go of the pieces
        best, whole = _best(found[0], limit)
        return best, complete and whole


def _together(found: Sequence[_Found]) -> _Found:
    which, ids, scores = zip(*found, strict=True)
    return np.concatenate(which), np.concatenate(ids), np.concatenate(scores)


def _best(found: _Found, limit: int | None) -> tuple[_Found, bool]:
    """Matches sorted, the best ``limit`` of each query, and whether these are all."""
    which, ids, scores = found
    order = np.lexsort((ids, -scores, which))
    if limit is not None:
        rank = np.arange(len(which)) - np.searchsorted(which[order], which[order])
        order = order[rank < limit]
    return (which[order], ids[order], scores[order]), len(order) == len(which)
