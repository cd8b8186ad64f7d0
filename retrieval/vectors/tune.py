"""How good an index is, measured, and how thoroughly it must look to be good enough."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Neighbors
from retrieval.vectors.base import Effort, Rows, VectorIndex
from retrieval.vectors.exact import Block, nearest
from retrieval.vectors.rescore import rescore

K = 10
_QUERIES = 400
_TIMED = 100
_BLOCK_ROWS = 16_384
_TIE = 1e-6
_Z = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an index reaches at one effort.

    Attributes:
        effort: how thoroughly it looked.
        ann_recall_at_10: share of the exact ten nearest that it found, mean over the queries.
        low: lower end of the mean's 95 % confidence interval.
        high: upper end.
        queries: on how many queries.
        latency_ms: of one query by itself, exact re-scoring included, median.
        latency_p95_ms: 95th percentile.
    """

    effort: Effort
    ann_recall_at_10: float
    low: float
    high: float
    queries: int
    latency_ms: float
    latency_p95_ms: float

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class Trial:
    """Queries with their exact answers, to measure indexes of the same rows on.

    Half of the queries are rows that look for their neighbours without themselves. The other half
    are rows moved away, in a random direction, as far as their nearest neighbour lies: no index
    knows them, and most real queries lie nearer to what is stored than they do.
    """

    def __init__(self, rows: Rows, extra: NDArray[np.float32] | None = None) -> None:
        """Find the true neighbours, by two scans.

        Args:
            rows: what is searched; queries are made of some, evenly spread.
            extra: float32 ``[m, dim]``, unit rows: further queries, as of texts, which are another
                distribution than the rows are.
        """
        n, dim = rows.shape
        own = np.unique(np.linspace(0, n - 1, min(_QUERIES, n)).astype(np.int64))[:n]
        near = nearest(_blocks(rows), rows.take(own), 2)
        moved = _moved(rows.take(own[1::2]), near.scores[1::2, -1])
        more = np.empty((0, dim), np.float32) if extra is None else extra[:_QUERIES]
        self._rows = rows
        self._queries = np.concatenate([rows.take(own[::2]), moved, more])
        self._self = np.full(len(self._queries), -1)
        self._self[: len(own[::2])] = own[::2]
        self._true = self._others(nearest(_blocks(rows), self._queries, min(K + 1, max(n, 1))))

    def measure(self, index: VectorIndex, effort: Effort) -> Measurement:
        """How good the index is at this effort, and how fast."""
        if self._rows.shape[0] == 0:
            return Measurement(effort, 1.0, 1.0, 1.0, 0, 0.0, 0.0)
        recalls = self._recalls(self._others(self._search(index, slice(None), effort)))
        spread = float(np.std(recalls)) / max(1.0, len(recalls)) ** 0.5
        # With every query answered fully the spread is 0 though the next might not be: the rule
        # of three bounds the share of such queries.
        slack = max(_Z * spread, 3.0 / (K * max(1, len(recalls))))
        mean = float(np.mean(recalls))
        times = []
        for at in range(0, len(self._queries), max(1, len(self._queries) // _TIMED)):
            started = time.perf_counter()
            self._search(index, slice(at, at + 1), effort)
            times.append(1000 * (time.perf_counter() - started))
        times.sort()
        return Measurement(
            effort,
            round(mean, 4),
            round(max(0.0, mean - slack), 4),
            round(min(1.0, mean + slack), 4),
            len(recalls),
            round(statistics.median(times), 3),
            round(times[int(0.95 * (len(times) - 1))], 3),
        )

    def tune(self, index: VectorIndex, target: float) -> tuple[Measurement, list[Measurement]]:
        """The least effort whose recall is surely at least ``target``; else the most there is.

        Args:
            index: of the trial's rows.
            target: for the lower end of the confidence interval of ann_recall_at_10.

        Returns:
            What was chosen, and everything that was tried.
        """
        tried = []
        for effort in index.efforts:
            tried.append(self.measure(index, effort))
            if tried[-1].low >= target:
                break
        return tried[-1], tried

    def _search(self, index: VectorIndex, which: slice, effort: Effort) -> Neighbors:
        """Ten neighbours of some queries, and eleven of those that are rows and find themselves."""
        n, queries, own = self._rows.shape[0], self._queries[which], self._self[which] >= 0
        found = Neighbors(
            np.full((len(queries), K + 1), -1, dtype=np.int64),
            np.full((len(queries), K + 1), -np.inf, dtype=np.float32),
        )
        for mine, k in ((own, K + 1), (~own, K)):
            if mine.any():
                candidates = index.candidates(queries[mine], min(k, n), effort)
                exact = rescore(self._rows, queries[mine], candidates, K + 1)
                found.ids[mine], found.scores[mine] = exact
        return found

    def _others(self, found: Neighbors) -> NDArray[np.float32]:
        """Scores ``[q, 10]`` of the first ten that are not the query itself."""
        out = np.full((len(found.ids), K), -np.inf, dtype=np.float32)
        for row, own in enumerate(self._self):
            kept = found.scores[row, found.ids[row] != own][:K]
            out[row, : len(kept)] = kept
        return out

    def _recalls(self, found: NDArray[np.float32]) -> NDArray[np.float64]:
        """By scores, so that of rows that are alike any is as good as the other."""
        there = np.isfinite(self._true)
        last = np.where(there, self._true, np.inf).min(axis=1, initial=np.inf)
        hits = (found >= last[:, None] - _TIE).sum(axis=1)
        wanted = there.sum(axis=1)
        recalls = np.where(wanted > 0, hits / np.maximum(1, wanted), 1.0)
        return np.asarray(recalls, dtype=np.float64)


def _moved(rows: NDArray[np.float32], cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit rows at the distance that ``cosines`` tell, each in a random direction."""
    near = np.clip(cosines, 0.0, 1.0)[:, None]
    away = np.random.default_rng(0).standard_normal(rows.shape)
    away -= (away * rows).sum(axis=1, keepdims=True) * rows
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    return np.asarray(near * rows + np.sqrt(1.0 - near**2) * away, dtype=np.float32)


def _blocks(rows: Rows) -> Iterator[Block]:
    at = 0
    for block in rows.blocks(_BLOCK_ROWS):
        yield np.arange(at, at + len(block)), block
        at += len(block)
