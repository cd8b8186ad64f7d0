"""Exact nearest neighbours: a blocked scan, the oracle that every index is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Neighbors

Block: TypeAlias = tuple[NDArray[np.int64], NDArray[np.floating]]
"""Ids ``[m]`` and vectors ``[m, dim]`` of some rows: unit rows in float32, or float16 that rounding
has moved off unit length and that is scaled back before it is compared."""

_SCAN_BYTES = 64 << 20


def nearest(
    blocks: Iterable[Block],
    queries: NDArray[np.float32],
    k: int,
    *,
    allowed: NDArray[np.int64] | None = None,
) -> Neighbors:
    """The k rows with the highest cosine to each query, by scanning every row.

    Args:
        blocks: the rows, in pieces; read once, so they may be streamed from disk.
        queries: float32 ``[q, dim]``, unit rows.
        k: how many neighbours, at least 1.
        allowed: int64 ids that may be answered, sorted; None allows every row.

    Returns:
        Neighbours ``[q, k]``, best first; equal scores in the order of their ids. Places that no
        row fills hold id -1 and score -inf.
    """
    q = queries.shape[0]
    ids = np.full((q, k), -1, dtype=np.int64)
    scores = np.full((q, k), -np.inf, dtype=np.float32)
    for block_ids, matrix in blocks:
        for some_ids, some_rows in _pieces(block_ids, matrix, q, allowed):
            found = np.clip(queries @ some_rows.T, -1.0, 1.0)
            some_ids, found = _best(some_ids, found, k)
            ids, scores = _merge(ids, scores, some_ids, found, k)
    return Neighbors(ids=ids, scores=scores)


def _pieces(
    ids: NDArray[np.int64],
    matrix: NDArray[np.floating],
    queries: int,
    allowed: NDArray[np.int64] | None,
) -> Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Cut a block so that neither its float32 copy nor its scores exceed the scan budget."""
    if allowed is not None:
        kept = np.flatnonzero(np.isin(ids, allowed, assume_unique=True))
        if len(kept) < len(ids):
            ids, matrix = ids[kept], matrix[kept]
    step = max(1, _SCAN_BYTES // (4 * max(queries, 1)))
    if matrix.dtype != np.float32:
        step = min(step, max(1, _SCAN_BYTES // (4 * max(matrix.shape[1], 1))))
    for start in range(0, len(ids), step):
        rows = matrix[start : start + step]
        if rows.dtype != np.float32:
            rows = rows.astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield ids[start : start + step], rows


def _best(
    ids: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best columns of ``scores [q, m]`` a row, unordered, with ties at the edge by id."""
    q, m = scores.shape
    if m <= k:
        return np.broadcast_to(ids, (q, m)), scores
    edge = np.partition(scores, m - k, axis=1)[:, m - k]
    out_ids = np.empty((q, k), dtype=np.int64)
    out_scores = np.empty((q, k), dtype=np.float32)
    for row in range(q):
        columns = np.flatnonzero(scores[row] >= edge[row])
        order = np.lexsort((ids[columns], -scores[row, columns]))[:k]
        out_ids[row] = ids[columns[order]]
        out_scores[row] = scores[row, columns[order]]
    return out_ids, out_scores


def _merge(
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    more_ids: NDArray[np.int64],
    more_scores: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Keep the k best of two candidate lists, sorted by score and then id."""
    all_ids = np.concatenate([ids, more_ids], axis=1)
    all_scores = np.concatenate([scores, more_scores], axis=1)
    order = np.lexsort((all_ids, -all_scores), axis=1)[:, :k]
    return np.take_along_axis(all_ids, order, 1), np.take_along_axis(all_scores, order, 1)
