"""Nearest neighbours through an index: exact scores, no dead rows, filters of any selectivity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Neighbors
from retrieval.vectors.base import Effort, Positions
from retrieval.vectors.exact import nearest
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.rescore import rescore
from retrieval.vectors.tune import K as TUNED_FOR

_EXACT_BYTES = 32 << 20
"""Vectors of so many bytes are compared one by one sooner than an index is asked about them."""
_BROAD = 0.25
"""A filter that lets through more than this share is applied to the answers."""
_SLACK = 1.25
_BLOCK_ROWS = 8192


def search(
    opened: OpenIndex,
    queries: NDArray[np.float32],
    k: int,
    *,
    dead: NDArray[np.bool_] | None = None,
    allowed: NDArray[np.int64] | None = None,
) -> Neighbors:
    """The nearest rows of an index.

    How depends on the share ``s`` of the rows that may be answered. Few rows are compared one by
    one, which is exact. Of most rows, more neighbours are asked for than are wanted, by ``1 / s``,
    and once more by four if too few are left. Between the two, or if even that does not do, the
    index itself is told which rows count.

    Args:
        opened: the index.
        queries: float32 ``[q, dim]``, unit rows.
        k: wanted neighbours.
        dead: bool ``[n]``: positions that must not be answered; None for none.
        allowed: sorted image ids that may be answered; None for all.

    Returns:
        Neighbours ``[q, k]`` with exact scores.

    Raises:
        VectorIndexError: if vectors turn out to be damaged.
    """
    n, dim = opened.rows.shape
    mask = None if dead is None or not dead.any() else ~dead
    if allowed is not None:
        at = opened.positions_of(allowed)
        at = at[at >= 0]
        if mask is not None:
            at = at[mask[at]]
        if 4 * dim * len(at) <= _EXACT_BYTES:
            return _one_by_one(opened, queries, k, np.sort(at))
        mask = np.zeros(n, dtype=bool)
        mask[at] = True
    if n == 0:
        return nearest([], queries, k)
    if mask is None:
        return _unfiltered(opened, queries, k)
    if (share := np.count_nonzero(mask) / n) > _BROAD:
        return _after(opened, queries, k, mask, share)
    found = opened.index.candidates(queries, k, _effort(opened, k), mask)
    return _named(opened, *rescore(opened.rows, queries, found, k))


def merge(one: Neighbors, other: Neighbors) -> Neighbors:
    """The best of two answers ``[q, k]`` about different rows."""
    k = one.ids.shape[1]
    ids = np.concatenate([one.ids, other.ids], axis=1)
    scores = np.concatenate([one.scores, other.scores], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return Neighbors(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def _one_by_one(
    opened: OpenIndex, queries: NDArray[np.float32], k: int, at: Positions
) -> Neighbors:
    pieces = (at[start : start + _BLOCK_ROWS] for start in range(0, len(at), _BLOCK_ROWS))
    return nearest(((opened.ids[p], opened.rows.take(p)) for p in pieces), queries, k)


def _unfiltered(opened: OpenIndex, queries: NDArray[np.float32], k: int) -> Neighbors:
    n = len(opened.ids)
    for wider in (1, 4, 16):
        found = opened.index.candidates(queries, k, _effort(opened, k * wider))
        if ((found >= 0).sum(axis=1) >= min(k, n)).all():
            return _named(opened, *rescore(opened.rows, queries, found, k))
    return _one_by_one(opened, queries, k, np.arange(n))


def _effort(opened: OpenIndex, k: float) -> Effort:
    """What was tuned for ten neighbours, for ``k``: in step with them it looks further.

    In powers of two times what was tuned, as an index may remember something for each effort.
    """
    further = 2 ** max(0, round(np.log2(max(k, 1) / TUNED_FOR)))
    return Effort(opened.effort.probes * further, opened.effort.factor)


def _after(
    opened: OpenIndex,
    queries: NDArray[np.float32],
    k: int,
    mask: NDArray[np.bool_],
    share: float,
) -> Neighbors:
    """Ask for more, drop what is not allowed, and ask for more again where too little is left."""
    living, wanted = int(np.count_nonzero(mask)), int(np.ceil(_SLACK * k / share))
    effort = _effort(opened, max(k, TUNED_FOR) / share)  # the k-th one is the k / share-th of all
    for asked in (wanted, 4 * wanted):
        found = opened.index.candidates(queries, min(asked, len(mask)), effort)
        found = np.where((found >= 0) & mask[found], found, -1)
        if ((found >= 0).sum(axis=1) >= min(k * opened.effort.factor, living)).all():
            break
    else:  # what is allowed lies elsewhere
        found = opened.index.candidates(queries, k, _effort(opened, k), mask)
    return _named(opened, *rescore(opened.rows, queries, found, k))


def _named(opened: OpenIndex, positions: Positions, scores: NDArray[np.float32]) -> Neighbors:
    ids = np.where(positions >= 0, opened.ids[positions], -1)
    return Neighbors(ids=ids, scores=scores)
