"""From candidates to exact neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows

_GATHER_BYTES = 16 << 20  # of candidates' vectors at a time: about what a cache holds


def rescore(
    rows: Rows, queries: NDArray[np.float32], candidates: Positions, k: int
) -> tuple[Positions, NDArray[np.float32]]:
    """The k best candidates of each query by their exact cosine.

    Args:
        rows: the vectors.
        queries: float32 ``[q, dim]``, unit rows.
        candidates: int64 ``[q, c]``, -1 where there is none; each position once a query.
        k: how many are kept.

    Returns:
        Positions ``[q, k]`` and scores ``[q, k]``, best first, equal scores in the order of their
        positions; -1 and -inf where there are fewer.
    """
    q, c = candidates.shape
    positions = np.full((q, k), -1, dtype=np.int64)
    scores = np.full((q, k), -np.inf, dtype=np.float32)
    if c == 0 or rows.shape[0] == 0:
        return positions, scores
    if q == 1:  # what people wait for, at half the cost of the general way
        some = candidates[0][candidates[0] >= 0]
        exact = cosines(rows, queries, some[None])[0]
        order = np.lexsort((some, -exact))[:k]
        positions[0, : len(order)], scores[0, : len(order)] = some[order], exact[order]
        return positions, scores
    exact = cosines(rows, queries, candidates)
    order = _best(exact, candidates, min(k, c))
    positions[:, : order.shape[1]] = np.take_along_axis(candidates, order, 1)
    scores[:, : order.shape[1]] = np.take_along_axis(exact, order, 1)
    positions[np.isneginf(scores)] = -1
    return positions, scores


def cosines(rows: Rows, queries: NDArray[np.float32], candidates: Positions) -> NDArray[np.float32]:
    """Exact cosines ``[q, c]`` of each query and its candidates, -inf where there is none.

    Vectors are gathered in blocks of some megabytes, however many candidates there are.
    """
    q, c = candidates.shape
    exact = np.empty((q, c), dtype=np.float32)
    row_bytes = 4 * max(1, rows.shape[1])
    width = max(1, min(c, _GATHER_BYTES // row_bytes))
    step = max(1, _GATHER_BYTES // (row_bytes * width))
    for at in range(0, q, step):
        for left in range(0, c, width):
            block = np.s_[at : at + step, left : left + width]
            some = candidates[block]
            vectors = rows.take(np.maximum(some.ravel(), 0)).reshape(*some.shape, -1)
            exact[block] = np.matmul(vectors, queries[at : at + step, :, None])[:, :, 0]
    np.clip(exact, -1.0, 1.0, out=exact)
    exact[candidates < 0] = -np.inf
    return exact


def _best(scores: NDArray[np.float32], positions: Positions, k: int) -> NDArray[np.int64]:
    """Columns of the k best of every row, sorted."""
    if scores.shape[1] <= 4 * k:
        return np.lexsort((positions, -scores), axis=1)[:, :k]
    # Some more than k, so that equal scores at the edge are told apart by position.
    edge = np.argpartition(-scores, 2 * k, axis=1)[:, : 2 * k]
    some = np.take_along_axis(scores, edge, 1), np.take_along_axis(positions, edge, 1)
    order = np.lexsort((some[1], -some[0]), axis=1)[:, :k]
    return np.take_along_axis(edge, order, 1)
