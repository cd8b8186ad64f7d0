"""Exact nearest neighbours: a blocked scan, the oracle that every index is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Neighbors
from retrieval.vectors.top import Top

Block: TypeAlias = tuple[NDArray[np.int64], NDArray[np.floating]]
"""Ids ``[m]`` and vectors ``[m, dim]`` of some rows: unit rows in float32, or float16 that rounding
has moved off unit length and that is scaled back before it is compared."""

_SCAN_BYTES = 16 << 20


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
    top = Top(len(queries), k)
    for block_ids, matrix in blocks:
        for some_ids, some_rows in _pieces(block_ids, matrix, len(queries), allowed):
            top.add(some_ids, queries @ some_rows.T)
    return top.best()


def _pieces(
    ids: NDArray[np.int64],
    matrix: NDArray[np.floating],
    queries: int,
    allowed: NDArray[np.int64] | None,
) -> Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Cut a block so that neither its float32 copy nor its scores exceed the scan budget."""
    if allowed is not None:
        kept = np.flatnonzero(_among(ids, allowed))
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


def _among(ids: NDArray[np.int64], allowed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which ids are allowed; a few are looked up, without reading all that are allowed."""
    if 4 * len(ids) >= len(allowed):
        return np.isin(ids, allowed, assume_unique=True)
    at = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    return np.asarray(allowed[at] == ids)
