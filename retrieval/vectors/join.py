"""All pairs above a cosine, of one set of rows with itself or with another.

Exact, in as many products as there are pairs, blocked to a memory budget. Where the processor is
fast with 16-bit floats those decide what need not be looked at (see
:mod:`retrieval.vectors.products`), and what is left is computed from the vectors as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows
from retrieval.vectors.products import Held, Products, fastest, groups_of
from retrieval.vectors.tiles import (
    MEMORY_BYTES,
    Exact,
    Tell,
    blocks,
    exact_cosines,
    held,
    pieces_of,
    sizes,
)

Pairs: TypeAlias = tuple[Positions, Positions, NDArray[np.float32]]
_Block: TypeAlias = tuple[int, NDArray[np.float32]]

_FEW_SHARE = 1 / 32
"""Of a tile's rows: so few that reach the threshold are looked at without cutting them further."""


def pairs_above(
    rows: Rows,
    threshold: float,
    *,
    memory_bytes: int = MEMORY_BYTES,
    start: int = 0,
    tell: Tell | None = None,
) -> Iterator[Pairs]:
    """Every pair of rows whose cosine is at least ``threshold``, once.

    Args:
        rows: unit rows ``[n, dim]``; they may be larger than the budget.
        threshold: cosine from which on a pair counts.
        memory_bytes: about how much is held at a time, besides what the caller keeps.
        start: only pairs whose later row is at ``start`` or after it: new rows against all.
        tell: called with ``done`` and n when all pairs among the first ``done`` rows have been
            given out; ``start=done`` goes on from there. The work left is about n² - done².

    Yields:
        ``a`` and ``b``, int64 ``[m]`` with ``a < b``, and float32 scores ``[m]``: cosines computed
        in float64. In no order.
    """
    n, dim = rows.shape
    join = _Join(threshold, memory_bytes, dim, (n - start) * (n + start) * dim // 2)
    for first, last in blocks(rows, join.outer, start):
        done = first + len(last)
        for a, b, score in join.across(rows, (first, last), stop=done):
            kept = a < b
            yield a[kept], b[kept], score[kept]
        if tell is not None:
            tell(done, n)


def pairs_between(
    left: Rows,
    right: Rows,
    threshold: float,
    *,
    memory_bytes: int = MEMORY_BYTES,
    tell: Tell | None = None,
) -> Iterator[Pairs]:
    """Every pair of a row of ``left`` and one of ``right`` whose cosine is at least ``threshold``.

    Args:
        left: unit rows ``[n, dim]``; they may be larger than the budget.
        right: unit rows ``[m, dim]``, too.
        threshold: cosine from which on a pair counts.
        memory_bytes: about how much is held at a time, besides what the caller keeps.
        tell: called with ``done`` and n when all pairs of the first ``done`` rows of ``left`` have
            been given out.

    Yields:
        ``a`` in ``left`` and ``b`` in ``right``, int64 ``[p]``, and float32 scores ``[p]``: cosines
        computed in float64. In no order.
    """
    n, dim = left.shape
    join = _Join(threshold, memory_bytes, dim, n * right.shape[0] * dim)
    for first, block in blocks(left, join.outer):
        for b, a, score in join.across(right, (first, block)):
            yield a, b, score
        if tell is not None:
            tell(first + len(block), n)


class _Join:
    """One pass: how it is cut, and with what it computes."""

    def __init__(self, threshold: float, memory_bytes: int, dim: int, work: int) -> None:
        self._threshold, self._memory, self._products = threshold, memory_bytes, fastest(work)
        self._tile, self.outer = sizes(memory_bytes, dim, self._products)

    def across(self, rows: Rows, block: _Block, stop: int | None = None) -> Iterator[Pairs]:
        """Pairs of ``rows``, those up to ``stop``, with an outer block.

        Where there is a ``stop`` the block is of the same rows, and tiles are passed over in which
        every row comes after the block's.
        """
        first, last = block
        pieces = held(self._products, last, self._tile)
        for begin, passing in blocks(rows, self._tile, 0, stop):
            left = self._products.hold(passing)
            for offset, right in pieces:
                if stop is not None and begin >= first + offset + len(right.matrix):
                    continue
                exact = passing, last[offset : offset + self._tile]
                for a, b, score in self._above(left, right, exact):
                    yield a + begin, b + (first + offset), score

    def _above(self, left: Held, right: Held, exact: Exact) -> Iterator[Pairs]:
        """Pairs of one tile, some groups at a time, so that even a tile full of pairs fits."""
        products: Products = self._products
        found = products.scores(left, right)
        bound = np.float32(self._threshold - products.margin(left, right))
        columns, count = found.shape[1], 1
        rows = np.flatnonzero(products.maxima(found, count)[:, 0] >= bound)
        groups = np.zeros_like(rows)
        if len(rows) > _FEW_SHARE * len(found):  # else all of their columns are looked at sooner
            count = groups_of(columns, 1)
            rows, groups = np.nonzero(products.maxima(found, count) >= bound)
        for part in pieces_of(len(rows), columns, count, self._memory):
            bounds = np.full(len(rows[part]), bound)
            a, b = products.look(found, rows[part], groups[part], count, bounds)
            score = exact_cosines(exact, a, b)
            kept = score >= np.float32(self._threshold)
            yield a[kept], b[kept], score[kept]
