"""Some images of a space with their vectors, in an order that nothing but their ids decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.space_vectors import SpaceVectors
from retrieval.types import Embeddings


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is picked from.

    Attributes:
        ids: int64 ``[n]``, ascending.
        rows: float32 ``[n, dim]``, their unit vectors, all in memory.
        groups: int64 ``[n]``: number of the group that each belongs to.
        quotas: int64 ``[groups]``: most that are picked of each group.
    """

    ids: NDArray[np.int64]
    rows: Embeddings
    groups: NDArray[np.int64]
    quotas: NDArray[np.int64]


class Open:
    """Which candidates may still be picked: not picked yet, of a group that is not full."""

    def __init__(self, candidates: Candidates) -> None:
        """All of them."""
        self._groups = candidates.groups
        self._left = candidates.quotas.copy()
        self.mask = self._left[self._groups] > 0

    def take(self, at: int) -> None:
        """Pick the candidate at a position."""
        group = self._groups[at]
        self._left[group] -= 1
        self.mask[at] = False
        if self._left[group] == 0:
            self.mask[self._groups == group] = False


def among(vectors: SpaceVectors, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], Embeddings]:
    """Those of sorted ``ids`` that have a vector, and the vectors."""
    at = vectors.positions(ids)
    return ids[at >= 0], vectors.take(at[at >= 0])


def equal_shares(sizes: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How many of each group make ``n``: as equal as the groups' sizes allow.

    What cannot be shared equally goes to the largest groups, those of equal size in their order.

    Args:
        sizes: int64 ``[g]`` of the groups.
        n: at most their sum.
    """
    shares = np.zeros_like(sizes)
    while (left := n - int(shares.sum())) > 0:
        room = sizes - shares
        roomy = np.flatnonzero(room)
        each = left // len(roomy)
        if each:
            shares[roomy] += np.minimum(room[roomy], each)
        else:
            shares[roomy[np.argsort(-sizes[roomy], kind="stable")][:left]] += 1
    return shares
