"""The graph of nearest neighbours of a collection, exact, in n² products of a memory budget."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows
from retrieval.vectors.products import Held, Products, fastest, groups_of, kth
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
from retrieval.vectors.top import Top


def knn_graph(
    rows: Rows,
    k: int,
    *,
    memory_bytes: int = MEMORY_BYTES,
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
    n, dim = rows.shape
    products = fastest(n * n * dim)
    tile, outer = sizes(memory_bytes, dim, products)
    positions = np.empty((n, k), dtype=np.int64)
    scores = np.empty((n, k), dtype=np.float32)
    for first, block in blocks(rows, outer):
        pieces = held(products, block, tile)
        tops = [Top(len(piece.matrix), k) for _, piece in pieces]
        for begin, other in blocks(rows, tile):
            right = products.hold(other)
            for top, (offset, left) in zip(tops, pieces, strict=True):
                exact = block[offset : offset + tile], other
                origin = first + offset, begin
                _nearer(products, top, k, left, right, exact, origin, memory_bytes)
        for top, (offset, piece) in zip(tops, pieces, strict=True):
            found, at = top.best(), slice(first + offset, first + offset + len(piece.matrix))
            positions[at], scores[at] = found.ids, found.scores
        if tell is not None:
            tell(first + len(block), n)
    return positions, scores


def _nearer(
    products: Products,
    top: Top,
    k: int,
    left: Held,
    right: Held,
    exact: Exact,
    origin: tuple[int, int],
    memory_bytes: int,
) -> None:
    """Let ``top`` take in what one tile, whose first row and column are ``origin``, can change."""
    found: Any = products.scores(left, right)
    count = groups_of(found.shape[1], k + 1)
    maxima = products.maxima(found, count)
    margin = np.float32(products.margin(left, right))
    # One of the k + 1 best may be the row itself.
    bound = np.maximum(top.bound, kth(maxima, k + 1) - margin) - margin
    rows, groups = np.nonzero(maxima >= bound[:, None])
    for part in pieces_of(len(rows), found.shape[1], count, memory_bytes):
        some = rows[part]
        row, column = products.look(found, some, groups[part], count, bound[some])
        other = row + origin[0] != column + origin[1]
        row, column = row[other], column[other]
        top.merge(row, column + origin[1], exact_cosines(exact, row, column))
