"""Searching an inverted file of FAISS: which cells to look into, also among allowed rows."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Effort, Positions, Rows
from retrieval.vectors.faiss_install import threads
from retrieval.vectors.faiss_search import FlatIndex, Found, ladder, selector

_FACTORS = {"ivf-rabitq": (4, 8, 16, 32, 64), "ivf-pq": (8, 16, 32, 64, 128)}
"""Candidates for each wanted neighbour, where codes lose much. Where many rows are nearly as near
as the nearest, more candidates are what it takes; elsewhere, more cells."""

_RESCORED = 20  # rows whose codes are compared in the time that one candidate's exact score takes

_MORE = 2.0
_ELSEWHERE = 1.5
_TABLE = 1 << 22


class CellIndex(FlatIndex):
    """An inverted file: rows by the nearest of its centres.

    Among allowed rows each query visits cells, nearest first, until it has met twice as many
    *allowed* rows as an unfiltered search meets rows: more than the same evidence, since allowed
    rows lie at the edge of more cells. Had it to pass over more rows than the share of allowed rows
    explains, these lie away from it, and it looks at more of them; had it to pass over half as many
    again, it scans the allowed rows.
    """

    def __init__(self, kind: str, index: Any, rows: Rows, size_bytes: int) -> None:
        """Serve ``index``, an inverted file with or without a rotation in front."""
        super().__init__(kind, index, rows, size_bytes)
        self.codes = not kind.endswith("flat")
        self._inverted = self._faiss.extract_index_ivf(index)
        self._rotated = hasattr(index, "chain")
        self._nlist = int(self._inverted.nlist)

    @property
    def memory_bytes(self) -> int:
        """The mapped file and what searches among allowed rows had to add."""
        added = (self.__dict__.get(name) for name in ("_centres", "_sizes", "_cell_of_row"))
        return self._size_bytes + sum(int(table.nbytes) for table in added if table is not None)

    @cached_property
    def efforts(self) -> tuple[Effort, ...]:
        """From four cells to all of them, each with few and with many candidates; by their cost."""
        if self._kind == "rabitq":
            return tuple(Effort(1, 2**power) for power in range(1, 8))
        steps = ladder(min(4, self._nlist), self._nlist, 2 if self._kind == "ivf-sq8" else 1)
        factors = _FACTORS.get(self._kind.removeprefix("gpu-"))
        if factors is None:
            return steps
        rows = self._index.ntotal / self._nlist
        plane = [Effort(step.probes, factor) for step in steps for factor in factors]
        return tuple(sorted(plane, key=lambda e: (rows * e.probes + 10 * _RESCORED * e.factor, e)))

    def _made(self, probes: int) -> Any:
        return self._wrapped(self._faiss.SearchParametersIVF(nprobe=probes))

    def _wrapped(self, parameters: Any) -> Any:
        if not self._rotated:
            return parameters
        return self._faiss.SearchParametersPreTransform(index_params=parameters)

    def _among(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        probes: int,
        allowed: NDArray[np.bool_],
        some: Positions,
    ) -> Found:
        chosen = selector(self._faiss, allowed)
        if self._nlist == 1:
            parameters = self._faiss.SearchParametersIVF(nprobe=1, sel=chosen)
            similar, found = self._search(queries, wanted, self._wrapped(parameters))
            return found, similar, np.zeros(len(queries), dtype=np.bool_)
        counts = np.bincount(self._cell_of_row[some], minlength=self._nlist)
        evidence = min(max(_MORE * probes * len(allowed) / self._nlist, wanted), len(some))
        step = max(1, _TABLE // self._nlist)
        pieces = [
            self._visit(queries[start : start + step], wanted, counts, evidence, chosen)
            for start in range(0, len(queries), step)
        ]
        return (
            np.concatenate([found for found, _, _ in pieces]),
            np.concatenate([similar for _, similar, _ in pieces]),
            np.concatenate([away for _, _, away in pieces]),
        )

    def _visit(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        counts: NDArray[np.int64],
        evidence: float,
        chosen: Any,
    ) -> Found:
        """Look into each query's nearest cells until they hold ``evidence`` allowed rows."""
        if self._rotated:
            queries = self._index.chain.at(0).apply(np.ascontiguousarray(queries))
        scores = queries @ self._centres.T
        order = np.argsort(-scores, axis=1)
        met = np.cumsum(counts[order], axis=1)
        last = (met < evidence).sum(axis=1)
        passed = np.cumsum(self._sizes[order], axis=1)[np.arange(len(queries)), last]
        away = passed * (counts.sum() / self._index.ntotal) / met[np.arange(len(queries)), last]
        met_enough = (met < (evidence * np.maximum(1.0, away))[:, None]).sum(axis=1) + 1
        width = min(int(met_enough.max()), self._nlist)
        order = order[:, :width]
        looked = (np.arange(width) < met_enough[:, None]) & (counts[order] > 0)
        visited = np.where(looked, order, -1)
        scores = np.take_along_axis(scores, order, axis=1)
        parameters = self._faiss.SearchParametersIVF(nprobe=width, sel=chosen)
        with threads(self._faiss, 1) if len(queries) == 1 else nullcontext():
            found, similar = self._preassigned(queries, wanted, visited, scores, parameters)
        return found, similar, away > _ELSEWHERE

    def _preassigned(
        self,
        queries: NDArray[np.float32],
        wanted: int,
        visited: Positions,
        scores: NDArray[np.float32],
        parameters: Any,
    ) -> tuple[Positions, NDArray[np.float32]]:
        """FAISS's search in given cells; its Python wrapper takes no parameters, this one does."""
        at = self._faiss.swig_ptr
        queries, visited = np.ascontiguousarray(queries), np.ascontiguousarray(visited)
        scores = np.ascontiguousarray(scores)
        similar = np.empty((len(queries), wanted), dtype=np.float32)
        found = np.empty((len(queries), wanted), dtype=np.int64)
        self._inverted.search_preassigned_c(
            len(queries), at(queries), wanted, at(visited), at(scores),
            at(similar), at(found), False, parameters,
        )  # fmt: skip
        return found, similar

    @cached_property
    def _centres(self) -> NDArray[np.float32]:
        centres: NDArray[np.float32] = self._inverted.quantizer.reconstruct_n(0, self._nlist)
        return centres

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.bincount(self._cell_of_row, minlength=self._nlist)

    @cached_property
    def _cell_of_row(self) -> NDArray[np.int32]:
        """int32 ``[n]``: read once from the lists, at the first search among allowed rows."""
        lists = self._inverted.invlists
        cell = np.zeros(self._index.ntotal, dtype=np.int32)
        for number in range(self._nlist):
            size = lists.list_size(number)
            if size:
                cell[self._faiss.rev_swig_ptr(lists.get_ids(number), size)] = number
        return cell
