"""The kind ``exact``: no index at all, every row is compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Effort, Positions, Rows
from retrieval.vectors.top import Top

_SCORE_BYTES = 16 << 20
_BLOCK_BYTES = 64 << 20


class Scan:
    """Builds nothing; answers the exact neighbours by float32 products with all rows.

    One query costs one reading of the rows, so its speed is that of memory (or of the disk, where
    they do not fit); many queries at once cost about one matrix product.
    """

    incremental = True

    def missing(self) -> str | None:
        """Nothing: numpy is all it needs."""
        return None

    def build(self, rows: Rows, folder: Path) -> None:
        """Write nothing."""

    def extend(self, old: Path, rows: Rows, start: int, folder: Path) -> None:
        """Write nothing."""

    def open(self, folder: Path, rows: Rows) -> ScanIndex:
        """A scan over ``rows``; ``folder`` is not looked at."""
        return ScanIndex(rows)


class ScanIndex:
    """The rows themselves, as an index. Candidates come best first, equal ones by position."""

    efforts = (Effort(),)
    memory_bytes = 0

    def __init__(self, rows: Rows) -> None:
        """Search ``rows``, which are not copied."""
        self._rows = rows

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        effort: Effort,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Positions:
        """The exact k nearest rows ``[q, k]``, whatever the effort; -1 where there are fewer."""
        top = Top(len(queries), k)
        for positions, block, barred in _pieces(self._rows, len(queries), allowed):
            scores = queries @ block.T if len(queries) > 1 else (block @ queries[0])[None, :]
            if barred is not None:
                scores[:, barred] = -np.inf
            top.add(positions, scores)
        return top.best().ids


_Piece = tuple[Positions, NDArray[np.float32], NDArray[np.bool_] | None]


def _pieces(rows: Rows, queries: int, allowed: NDArray[np.bool_] | None) -> Iterator[_Piece]:
    """Positions and vectors of rows to compare, and which of them must not be answered.

    Few allowed rows are taken one by one; among many it is cheaper to read all and to mask.
    """
    n, dim = rows.shape
    size = max(1, min(_SCORE_BYTES // (4 * max(queries, 1)), _BLOCK_BYTES // (4 * max(dim, 1))))
    if not queries or not n:
        return
    if allowed is not None and np.count_nonzero(allowed) * 4 <= n:
        kept = np.flatnonzero(allowed)
        for start in range(0, len(kept), size):
            some = kept[start : start + size]
            yield some, rows.take(some), None
        return
    start = 0
    for block in rows.blocks(size):
        stop = start + len(block)
        yield np.arange(start, stop), block, None if allowed is None else ~allowed[start:stop]
        start = stop
