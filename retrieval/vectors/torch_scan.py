"""The kind ``torch``: an exact scan whose first look at the rows is in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Effort, Positions, Rows, VectorIndex
from retrieval.vectors.products import Half, Held, groups_of, half_pays, kth, products_of
from retrieval.vectors.scan import ScanIndex
from retrieval.vectors.top import Top

_BLOCK_BYTES = 64 << 20
_SCORE_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}
_GATHER_BYTES = 16 << 20
_CROWD = 512


class TorchScan:
    """Exact neighbours by 16-bit products with all rows and a float32 look at those that may win.

    On CUDA the rows lie on the device as float16, or pass through it where they do not fit. On the
    CPU they are kept as bfloat16 where the processor multiplies that faster; elsewhere this is the
    kind ``exact``.
    """

    incremental = True

    def __init__(self, device: str | None = None) -> None:
        """Compute on ``device``, as ``cuda:1`` or ``cpu``; by default on CUDA if there is one."""
        self._device = device

    def missing(self) -> str | None:
        """torch, or the CUDA device that was asked for."""
        if find_spec("torch") is None:
            return "it needs torch: pip install torch"
        import torch

        if (self._device or "cpu").startswith("cuda") and not torch.cuda.is_available():
            return "torch sees no CUDA device here: install its CUDA build, or use device cpu"
        return None

    def build(self, rows: Rows, folder: Path) -> None:
        """Write nothing."""

    def extend(self, old: Path, rows: Rows, start: int, folder: Path) -> None:
        """Write nothing."""

    def open(self, folder: Path, rows: Rows) -> VectorIndex:
        """Round ``rows`` onto the device, which reads them all once."""
        import torch

        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device == "cpu":
            return HalfIndex(rows, Half()) if half_pays() else ScanIndex(rows)
        free, _ = torch.cuda.mem_get_info(device)
        needed = rows.shape[0] * rows.shape[1] * 2 + 4 * _SCORE_BYTES["cuda"]
        return HalfIndex(rows, Half("float16", device), resident=needed <= 0.8 * free)


class HalfIndex:
    """Scans 16-bit rows. Nothing that could be among the k best is left out.

    With margin e, the proven bound of :mod:`retrieval.vectors.products`, and T a cosine that k rows
    are known to reach, a row can only be among the k best if its 16-bit score is at least T - e.
    At first T is the k-th best 16-bit score less e; then it is the k-th best of true cosines, since
    every row in that band is compared as it is. Where the band of a query holds very many rows,
    that query is answered in float32.
    """

    efforts = (Effort(),)

    def __init__(self, rows: Rows, products: Half, *, resident: bool = True) -> None:
        """Round all ``rows``, or each block anew for every search if they are not ``resident``."""
        self._rows, self._products = rows, products
        self._held = self._hold() if resident else None
        self._scan = ScanIndex(rows)

    @property
    def memory_bytes(self) -> int:
        """Of the rounded rows."""
        return self._rows.shape[0] * self._rows.shape[1] * 2 if self._held else 0

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """The exact k nearest rows ``[q, k]``, whatever the effort; -1 where there are fewer."""
        n = self._rows.shape[0]
        few = allowed is not None and np.count_nonzero(allowed) * 16 <= n
        if few or not n or not len(queries):
            return self._scan.candidates(queries, k, effort, allowed)
        top = Top(len(queries), k)
        crowded = np.zeros(len(queries), dtype=bool)
        left = self._products.hold(queries)
        for start, right in self._pieces(len(queries)):
            barred = None if allowed is None else ~allowed[start : start + len(right.matrix)]
            self._take_in(top, k, (queries, left), (start, right), barred, crowded)
        found = top.best().ids
        if crowded.any():
            found[crowded] = self._scan.candidates(queries[crowded], k, effort, allowed)
        return found

    def _take_in(
        self,
        top: Top,
        k: int,
        asked: tuple[NDArray[np.float32], Held],
        piece: tuple[int, Held],
        barred: NDArray[np.bool_] | None,
        crowded: NDArray[np.bool_],
    ) -> None:
        """Let ``top`` see the rows of a piece that matter; mark queries with too many of them."""
        (queries, left), (start, right) = asked, piece
        scores = self._products.scores(left, right)
        if barred is not None:
            scores[:, barred] = -np.inf
        count = groups_of(scores.shape[1], k)
        maxima = self._products.maxima(scores, count)
        margin = np.float32(self._products.margin(left, right))
        bound = np.maximum(top.bound, kth(maxima, k) - margin) - margin
        reached = maxima >= np.maximum(bound, np.float32(-2.0))[:, None]
        crowded |= np.count_nonzero(reached, axis=1) > max(_CROWD, 16 * k)
        rows, groups = np.nonzero(reached & ~crowded[:, None])
        row, column = self._products.look(scores, rows, groups, count, bound[rows])
        column += start
        step = max(1, _GATHER_BYTES // (8 * queries.shape[1]))
        for at in range(0, len(row), step):
            some, places = row[at : at + step], column[at : at + step]
            exact = products_of(queries[some], self._rows.take(places))
            top.merge(some, places, exact.clip(-1.0, 1.0).astype(np.float32))

    def _pieces(self, queries: int) -> Iterator[tuple[int, Held]]:
        """Rows by their first position, so many that the scores keep to their budget."""
        budget = _SCORE_BYTES[self._products.device.split(":")[0]]
        step = max(1, budget // (self._products.score_bytes * queries))
        if self._held is not None:
            for start in range(0, self._rows.shape[0], step):
                yield start, Held(self._held.matrix[start : start + step], self._held.residual)
            return
        start = 0
        for block in self._rows.blocks(min(step, _block_rows(self._rows))):
            yield start, self._products.hold(block)
            start += len(block)

    def _hold(self) -> Held:
        matrix, start, residual = self._products.empty(self._rows.shape), 0, 0.0
        for block in self._rows.blocks(_block_rows(self._rows)):
            held = self._products.hold(block)
            matrix[start : start + len(block)] = held.matrix
            start, residual = start + len(block), max(residual, held.residual)
        return Held(matrix, residual)


def _block_rows(rows: Rows) -> int:
    return max(1, _BLOCK_BYTES // (4 * max(1, rows.shape[1])))
