"""Cutting the products of many rows with many into tiles that keep to a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows
from retrieval.vectors.products import Held, Products, cosines

Tell: TypeAlias = Callable[[int, int], None]
Exact: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The rows of a tile's two sides as they are."""

MEMORY_BYTES = 256 << 20
_GATHER_BYTES = 4 << 20
_TILE = 4096


def sizes(memory_bytes: int, dim: int, products: Products) -> tuple[int, int]:
    """Rows of a tile's side, and of an outer block, which is held while all pass by."""
    row_bytes = 8 * max(1, dim)
    side = int((memory_bytes / 4 / products.score_bytes) ** 0.5)
    tile = max(1, min(_TILE, side, memory_bytes // 4 // row_bytes))
    return tile, max(1, memory_bytes // 4 // row_bytes // tile) * tile


def pieces_of(count: int, columns: int, groups: int, memory_bytes: int) -> Iterator[slice]:
    """Cut ``count`` groups of a tile's columns, one of which takes every ``groups``-th of them.

    As many are looked into together as the budget has room for.
    """
    depth = -(-columns // max(1, groups))
    step = max(1, memory_bytes // 4 // (128 * max(1, depth)))
    return (slice(at, at + step) for at in range(0, count, step))


def blocks(
    rows: Rows, size: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of rows from ``start`` up to ``stop``, each with the position of its first row."""
    for block in rows.blocks(size, start):
        if stop is not None:
            block = block[: stop - start]
        if not len(block):
            return
        yield start, block
        start += len(block)


def held(products: Products, block: NDArray[np.float32], tile: int) -> list[tuple[int, Held]]:
    """An outer block in tiles, each with where it begins in the block."""
    return [(at, products.hold(block[at : at + tile])) for at in range(0, len(block), tile)]


def exact_cosines(sides: Exact, a: Positions, b: Positions) -> NDArray[np.float32]:
    """float32 ``[m]``: of rows ``a`` of the left side with rows ``b`` of the right one."""
    left, right = sides
    score = np.empty(len(a), dtype=np.float32)
    step = max(1, _GATHER_BYTES // (8 * max(1, left.shape[1])))
    for at in range(0, len(a), step):
        score[at : at + step] = cosines(left[a[at : at + step]], right[b[at : at + step]])
    return score
