"""The nearest rows with scores that do not depend on what else is asked at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Embeddings
from retrieval.vectors import Block, nearest
from retrieval.vectors.base import Positions
from retrieval.vectors.products import cosines

_SLACK = 8  # neighbours beyond k that are scored again: rounding may have put them in a wrong order
_PAIRS = 8192


def search(
    blocks: Iterable[Block],
    take: Callable[[Positions], Embeddings],
    queries: Embeddings,
    k: int,
    without: Positions | None = None,
) -> tuple[Positions, NDArray[np.float32]]:
    """The k nearest rows of each query, by comparing all in one pass, then scored in float64.

    Args:
        blocks: all rows with their positions.
        take: gives float32 ``[m, dim]`` rows at some positions.
        queries: float32 ``[q, dim]``, unit rows.
        k: at least 1.
        without: int64 ``[q]``: a row that is not a neighbour of the query, as the query itself; -1
            for none.

    Returns:
        Positions int64 ``[q, k]`` and float32 cosines ``[q, k]``, best first, equal ones in the
        order of their positions; -1 and -inf where there are fewer.
    """
    found = nearest(blocks, queries, k + 1 + _SLACK).ids
    row, column = np.nonzero(found >= 0)
    scores = np.full(found.shape, -np.inf, dtype=np.float32)
    for at in range(0, len(row), _PAIRS):
        pair = row[at : at + _PAIRS], column[at : at + _PAIRS]
        scores[pair] = cosines(queries[pair[0]], take(found[pair]))
    if without is not None:
        scores[found == without[:, None]] = -np.inf
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    best = np.take_along_axis(scores, order, 1)
    return np.where(np.isneginf(best), -1, np.take_along_axis(found, order, 1)), best
