"""The k best of scores that come in pieces, at little more than the cost of reading them once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Neighbors

_LEAST = np.float32(-2.0)
"""Below every cosine: a row with less, such as -inf, is never kept."""


class Top:
    """Keeps the k highest scores of each query; equal ones in the order of their ids.

    Nothing is sorted that cannot win: of each piece only the few scores that reach a bound are
    looked at. The bound is the k-th best so far; for the first piece it is the k-th highest of the
    maxima of disjoint groups of columns, which at least k columns reach.
    """

    def __init__(self, queries: int, k: int) -> None:
        """Start with nothing found for any of ``queries``."""
        self._k = k
        self._ids = np.full((queries, k), -1, dtype=np.int64)
        self._scores = np.full((queries, k), -np.inf, dtype=np.float32)

    def add(self, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Take in ``scores`` ``[q, m]`` of the rows ``ids`` ``[m]``; -inf is never an answer.

        Scores that rounding moved out of [-1, 1] count as 1 or -1.
        """
        if not scores.size:
            return
        bound = self.bound
        if np.isneginf(bound).any():
            bound = np.maximum(bound, _bound(scores, self._k))
        reached = scores >= np.where(bound > -1.0, bound, _LEAST)[:, None]
        row, column = np.divmod(np.flatnonzero(reached.reshape(-1)), scores.shape[1])
        crowded = np.flatnonzero(np.bincount(row) > 8 * self._k + 64)
        if len(crowded):
            for one in crowded:
                reached[one] = _reached(scores[one], self._k, ids)
            row, column = np.divmod(np.flatnonzero(reached.reshape(-1)), scores.shape[1])
        self.merge(row, ids[column], np.clip(scores[row, column], -1.0, 1.0))

    @property
    def bound(self) -> NDArray[np.float32]:
        """The k-th best score of each query so far: what cannot reach it cannot matter."""
        return self._scores[:, -1]

    def best(self) -> Neighbors:
        """What was found, best first; id -1 and score -inf fill up."""
        return Neighbors(ids=self._ids, scores=self._scores)

    def merge(
        self, row: NDArray[np.int64], ids: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> None:
        """Take in single scores in [-1, 1], ``[m]``, each of the query ``row`` and of one id."""
        if not len(row):
            return
        held = np.unique(row)
        row = np.concatenate([np.repeat(held, self._k), row])
        ids = np.concatenate([self._ids[held].ravel(), ids])
        scores = np.concatenate([self._scores[held].ravel(), scores])
        order = np.lexsort((ids, -scores, row))
        row = row[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = order[rank < self._k]
        self._ids[held] = ids[kept].reshape(len(held), self._k)
        self._scores[held] = scores[kept].reshape(len(held), self._k)


def _bound(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """For each row a score that at least k of its columns reach, close to the k-th highest."""
    q, m = scores.shape
    if m <= k:
        return np.full(q, -np.inf, dtype=np.float32)
    groups = max(8 * k, 256)
    deep = m // groups
    if deep > 1:
        # Groups take every ``groups``-th column: long runs for the maximum, and neighbours in
        # storage, which are often alike, fall into different groups.
        scores = scores[:, : deep * groups].reshape(q, deep, groups).max(axis=1)
        m = groups
    edge: NDArray[np.float32] = np.partition(scores, m - k, axis=1)[:, m - k]
    return np.minimum(edge, np.float32(1.0))


def _reached(scores: NDArray[np.float32], k: int, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Exactly the k best columns of one row in which very many score alike."""
    scores = np.clip(scores, -1.0, 1.0)
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    reached: NDArray[np.bool_] = scores > edge
    equal = np.flatnonzero((scores == edge) & (scores > _LEAST))
    missing = k - np.count_nonzero(reached)
    reached[equal[np.argsort(ids[equal], kind="stable")[:missing]]] = True
    return reached
