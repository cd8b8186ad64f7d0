"""All pairs above a cosine, and the graph of nearest neighbours: a collection against itself.

Both are exact and take n² products, blocked to a memory budget. Where the processor is fast with
16-bit floats those decide what need not be looked at (see :mod:`retrieval.vectors.products`), and
what is left is computed from the vectors as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows
from retrieval.vectors.products import Held, Products, cosines, fastest, groups_of, kth
from retrieval.vectors.top import Top

Pairs: TypeAlias = tuple[Positions, Positions, NDArray[np.float32]]
Tell: TypeAlias = Callable[[int, int], None]

_MEMORY_BYTES = 256 << 20
_GATHER_BYTES = 4 << 20
_TILE = 4096


def pairs_above(
    rows: Rows,
    threshold: float,
    *,
    memory_bytes: int = _MEMORY_BYTES,
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
    products = fastest()
    n, dim = rows.shape
    tile, outer, chunk = _sizes(memory_bytes, dim, products)
    for first, last in _blocks(rows, outer, start):
        pieces = _held(products, last, tile)
        for begin, block in _blocks(rows, tile, 0, first + len(last)):
            left = products.hold(block)
            for offset, right in pieces:
                if begin >= first + offset + len(right.matrix):
                    continue
                exact = block, last[offset : offset + tile]
                for a, b, score in _above(products, left, right, exact, threshold, chunk):
                    a, b = a + begin, b + (first + offset)
                    kept = a < b
                    yield a[kept], b[kept], score[kept]
        if tell is not None:
            tell(first + len(last), n)


def knn_graph(
    rows: Rows,
    k: int,
    *,
    memory_bytes: int = _MEMORY_BYTES,
    tell: Tell | None = None,
) -> tuple[Positions, NDArray[np.float32]]:
    """The k nearest other rows of every row.

    Args:
        rows: unit rows ``[n, dim]``; they may be larger than the budget.
        k: neighbours of each row, at least 1; a row is not its own neighbour.
        memory_bytes: about how much is held at a time, besides the result.
        tell: called with the number of finished rows, and n.

    Returns:
        Positions int64 ``[n, k]`` and float32 cosines ``[n, k]``, best first, equal ones in the
        order of their positions; -1 and -inf where there are fewer.
    """
    products = fastest()
    n, dim = rows.shape
    tile, outer, chunk = _sizes(memory_bytes, dim, products)
    positions = np.empty((n, k), dtype=np.int64)
    scores = np.empty((n, k), dtype=np.float32)
    for first, block in _blocks(rows, outer):
        pieces = _held(products, block, tile)
        tops = [Top(len(held.matrix), k) for _, held in pieces]
        for begin, other in _blocks(rows, tile):
            right = products.hold(other)
            for top, (offset, left) in zip(tops, pieces, strict=True):
                exact = block[offset : offset + tile], other
                origin = first + offset, begin
                _nearer(products, top, k, left, right, exact, origin, chunk)
        for top, (offset, held) in zip(tops, pieces, strict=True):
            found, at = top.best(), slice(first + offset, first + offset + len(held.matrix))
            positions[at], scores[at] = found.ids, found.scores
        if tell is not None:
            tell(first + len(block), n)
    return positions, scores


def _sizes(memory_bytes: int, dim: int, products: Products) -> tuple[int, int, int]:
    """Rows of a tile's side; of an outer block, held while all pass by; groups looked into."""
    row_bytes = 8 * max(1, dim)
    side = int((memory_bytes / 4 / products.score_bytes) ** 0.5)
    tile = max(1, min(_TILE, side, memory_bytes // 4 // row_bytes))
    outer = max(1, memory_bytes // 4 // row_bytes // tile) * tile
    depth = -(-tile // groups_of(tile, 1))
    return tile, outer, max(1, memory_bytes // 4 // (128 * depth))


def _blocks(
    rows: Rows, size: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for block in rows.blocks(size, start):
        if stop is not None:
            block = block[: stop - start]
        if not len(block):
            return
        yield start, block
        start += len(block)


def _held(products: Products, block: NDArray[np.float32], tile: int) -> list[tuple[int, Held]]:
    return [(at, products.hold(block[at : at + tile])) for at in range(0, len(block), tile)]


_Exact: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


def _above(
    products: Products, left: Held, right: Held, exact: _Exact, threshold: float, chunk: int
) -> Iterator[Pairs]:
    """Pairs of one tile, ``chunk`` groups at a time, so that even a tile full of pairs fits."""
    found = products.scores(left, right)
    bound = np.float32(threshold - products.margin(left, right))
    count = groups_of(found.shape[1], 1)
    rows, groups = np.nonzero(products.maxima(found, count) >= bound)
    for at in range(0, len(rows), chunk):
        some = rows[at : at + chunk]
        bounds = np.full(len(some), bound)
        a, b = products.look(found, some, groups[at : at + chunk], count, bounds)
        score = _cosines(*exact, a, b)
        kept = score >= np.float32(threshold)
        yield a[kept], b[kept], score[kept]


def _nearer(
    products: Products,
    top: Top,
    k: int,
    left: Held,
    right: Held,
    exact: _Exact,
    origin: tuple[int, int],
    chunk: int,
) -> None:
    """Let ``top`` take in what one tile, whose first row and column are ``origin``, can change."""
    found: Any = products.scores(left, right)
    count = groups_of(found.shape[1], k + 1)
    maxima = products.maxima(found, count)
    margin = np.float32(products.margin(left, right))
    # One of the k + 1 best may be the row itself.
    bound = np.maximum(top.bound, kth(maxima, k + 1) - margin) - margin
    rows, groups = np.nonzero(maxima >= bound[:, None])
    for at in range(0, len(rows), chunk):
        some = rows[at : at + chunk]
        row, column = products.look(found, some, groups[at : at + chunk], count, bound[some])
        other = row + origin[0] != column + origin[1]
        row, column = row[other], column[other]
        top.merge(row, column + origin[1], _cosines(*exact, row, column))


def _cosines(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    a: Positions,
    b: Positions,
) -> NDArray[np.float32]:
    """float32 ``[m]``: of rows ``a`` of ``left`` with rows ``b`` of ``right``."""
    score = np.empty(len(a), dtype=np.float32)
    step = max(1, _GATHER_BYTES // (8 * max(1, left.shape[1])))
    for at in range(0, len(a), step):
        score[at : at + step] = cosines(left[a[at : at + step]], right[b[at : at + step]])
    return score
