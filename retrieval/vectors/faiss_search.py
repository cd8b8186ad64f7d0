"""Searching an opened FAISS index, among all rows or among those that are allowed."""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Effort, Positions, Rows
from retrieval.vectors.exact import nearest
from retrieval.vectors.faiss_install import load_faiss, threads
from retrieval.vectors.rescore import cosines

Found = tuple[Positions, NDArray[np.float32], NDArray[np.bool_]]
"""Candidates ``[q, c]``, their scores by codes, and whether a query must be answered exactly."""

_MOST_PROBES_OF_GRAPH = 4_096
_WALK = 8
_EXACT_BLOCK = 16_384
_DOUBT = 1.0
_LEAST = 10


class FlatIndex:
    """Rows in one list, all of which every search visits; what all FAISS indexes share.

    Among allowed rows the codes may tell too little: where the allowed rows are far from the query
    many are equally far, and the error of the codes decides who is a candidate. So the candidates
    of a filtered search are checked (:meth:`_doubtful`) and queries in doubt scan the allowed rows.
    """

    codes = False

    def __init__(self, kind: str, index: Any, rows: Rows, size_bytes: int) -> None:
        """Serve ``index`` of ``rows``, whose file has ``size_bytes``."""
        self._faiss = load_faiss()
        self._kind = kind
        self._index = index
        self._rows = rows
        self._size_bytes = size_bytes
        self._known: dict[int, Any] = {}

    @property
    def memory_bytes(self) -> int:
        """The mapped file and what searches among allowed rows had to add."""
        return self._size_bytes

    @cached_property
    def efforts(self) -> tuple[Effort, ...]:
        """One: it is exact."""
        return (Effort(0, 1),)

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """The ``k * effort.factor`` best by codes, as if k were ten at least; all if no more."""
        # Codes that put ten neighbours among the first hundred can put one at the eleventh place.
        least = _LEAST if self.codes else 1
        wanted = max(1, min(max(k, least) * effort.factor, self._index.ntotal))
        if allowed is None:
            return self._search(queries, wanted, self._parameters(effort.probes))[1]
        some = np.flatnonzero(allowed)
        if len(some) <= wanted or len(queries) == 0:
            filled = some if len(some) else np.full(1, -1, dtype=np.int64)
            return np.broadcast_to(filled, (len(queries), len(filled)))
        found, similar, doubtful = self._among(queries, wanted, effort.probes, allowed, some)
        if self.codes:
            doubtful = doubtful | self._doubtful(queries, k, found, similar)
        if doubtful.any():
            found[doubtful] = self._exactly(queries[doubtful], k, some, wanted)
        return found

    def _search(
        self, queries: NDArray[np.float32], wanted: int, parameters: Any
    ) -> tuple[NDArray[np.float32], Positions]:
        """Ask FAISS; for one query by one thread, as waking a second one only costs time."""
        if len(queries) > 1:
            found = self._index.search(queries, wanted, params=parameters)
        else:
            with threads(self._faiss, 1):
                found = self._index.search(queries, wanted, params=parameters)
        return found[0], found[1]

    def _parameters(self, probes: int) -> Any:
        """One object for each effort, shared by all threads, which only read it."""
        if probes not in self._known:
            self._known[probes] = self._made(max(1, probes))
        return self._known[probes]

    def _made(self, probes: int) -> Any:
        return None

    def _among(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        probes: int,
        allowed: NDArray[np.bool_],
        some: Positions,
    ) -> Found:
        parameters = self._faiss.SearchParameters(sel=selector(self._faiss, allowed))
        similar, found = self._search(queries, wanted, parameters)
        return found, similar, np.zeros(len(queries), dtype=np.bool_)

    def _doubtful(
        self,
        queries: NDArray[np.float32],
        k: int,
        found: Positions,
        similar: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """Whether rows that were cut off may belong to the k best.

        The last candidate's code says ``similar[:, -1]``, the k-th best by exact score has ``t``.
        A row that was cut off has a code at most as good as the last one's; it can reach ``t`` if
        the error of a code, whose deviation the candidates show, is larger than the difference.
        """
        cut = found[:, -1] >= 0
        if not cut.any() or found.shape[1] <= k:
            return cut
        doubtful = cut.copy()
        scores = cosines(self._rows, queries[cut], found[cut])
        reached = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
        error = (similar[cut] - scores).std(axis=1)
        doubtful[cut] = similar[cut, -1] > reached - _DOUBT * error
        return doubtful

    def _exactly(
        self, queries: NDArray[np.float32], k: int, some: Positions, width: int
    ) -> Positions:
        """The k best of the rows ``some`` by a scan, in ``width`` columns."""
        starts = range(0, len(some), _EXACT_BLOCK)
        pieces = (some[start : start + _EXACT_BLOCK] for start in starts)
        best = nearest(((ids, self._rows.take(ids)) for ids in pieces), queries, min(k, width))
        found = np.full((len(queries), width), -1, dtype=np.int64)
        found[:, : best.ids.shape[1]] = best.ids
        return found


class GraphIndex(FlatIndex):
    """HNSW (Malkov and Yashunin, 2016, arXiv 1603.09320).

    Among allowed rows a walk is widened by the inverse of their share, and others are dropped from
    what it found. Queries that are left with too few, because the allowed rows lie elsewhere, scan
    the allowed rows; so does every query where the walk would cost as much as the scan.
    The planner above answers allowed sets of less than some thousand rows exactly.
    """

    codes = True

    @cached_property
    def efforts(self) -> tuple[Effort, ...]:
        """Lists of 16 candidates and more, up to some thousands."""
        return ladder(16, max(16, min(self._index.ntotal, _MOST_PROBES_OF_GRAPH)), 2)

    def _made(self, probes: int) -> Any:
        return self._faiss.SearchParametersHNSW(efSearch=probes)

    def _among(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        probes: int,
        allowed: NDArray[np.bool_],
        some: Positions,
    ) -> Found:
        # With FAISS's own selector a walk also takes allowed rows that it happens to pass on its
        # way, and looks complete without being so.
        walk = max(probes, wanted) * len(allowed) * 3 // (len(some) * 2)
        if walk * _WALK > len(some):
            none = np.full((len(queries), wanted), -1, dtype=np.int64)
            nothing = np.zeros(none.shape, dtype=np.float32)
            return none, nothing, np.ones(len(queries), dtype=np.bool_)
        similar, seen = self._search(queries, walk, self._made(walk))
        others = ~(allowed[seen] & (seen >= 0))
        kept = np.argsort(others, axis=1, kind="stable")[:, :wanted]
        short: NDArray[np.bool_] = np.any(np.take_along_axis(others, kept, axis=1), axis=1)
        found = np.take_along_axis(seen, kept, axis=1)
        return found, np.take_along_axis(similar, kept, axis=1), short


def ladder(least: int, most: int, factor: int) -> tuple[Effort, ...]:
    """Efforts from ``least`` to ``most`` probes, each twice the last, with the same factor."""
    steps = [least]
    while steps[-1] < most:
        steps.append(min(2 * steps[-1], most))
    return tuple(Effort(probes, factor) for probes in steps)


def selector(faiss: ModuleType, allowed: NDArray[np.bool_]) -> Any:
    """FAISS's bit for each row."""
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
