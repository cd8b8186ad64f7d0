"""What is known of contents that were compared with each other, and how it is carried over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.duplicates.comparer import UNSEEN
from retrieval.query.duplicates.contents import Bytes, positions_in
from retrieval.vectors.base import Positions
from retrieval.vectors.join import Pairs
from retrieval.vectors.sorted_ids import places

UNKNOWN = -1
"""The tier of a pair that nobody looked at yet."""


class TooMany(QueryError):
    """More pairs than can be looked at."""

    def __init__(self, most: int, threshold: float) -> None:
        """More than ``most`` of them reach ``threshold``."""
        super().__init__(f"more than {most:,} pairs reach {threshold}: ask for a higher threshold")


@dataclass(frozen=True, slots=True)
class Kept:
    """Contents of which each was compared with each, and all pairs among them.

    Attributes:
        threshold: cosine that the pairs reach.
        whole: whether the run that compared them came to its end.
        keys: uint8 ``[n, 24]``: the contents.
        a: int64 ``[m]``: positions in ``keys``.
        b: int64 ``[m]``: too, ``a < b``.
        scores: float32 ``[m]``.
        tiers: int8 ``[m]``: index into :data:`~.tiers.TIERS`, or :data:`UNKNOWN`.
        whys: ``[m]`` of str.
    """

    threshold: float
    whole: bool
    keys: Bytes
    a: Positions
    b: Positions
    scores: NDArray[np.float32]
    tiers: NDArray[np.int8]
    whys: NDArray[np.object_]

    @classmethod
    def nothing(cls, threshold: float, keys: Bytes) -> Kept:
        """No pair yet."""
        none = np.empty(0, np.int64)
        no_score = np.empty(0, np.float32)
        return cls(threshold, False, keys, none, none, no_score, np.empty(0, np.int8), _words(0))

    def among(self, keys: Bytes, at: Positions) -> Kept:
        """The pairs of which both contents are still there.

        Args:
            keys: contents in another order.
            at: ``[n]``: where each of this one's is among them; -1 where it is gone.
        """
        a, b = at[self.a], at[self.b]
        both = (a >= 0) & (b >= 0)
        low, high = np.minimum(a, b)[both], np.maximum(a, b)[both]
        return Kept(
            self.threshold, self.whole, keys, low, high,
            self.scores[both], self.tiers[both], self.whys[both],
        )  # fmt: skip

    def reaching(self, threshold: float) -> Kept:
        """Only pairs that reach a threshold, which is not below this one's."""
        return replace(self._only(self.scores >= np.float32(threshold)), threshold=threshold)

    def looked_at(self) -> Kept:
        """Only pairs that somebody looked at."""
        return self._only(self.tiers != UNKNOWN)

    def _only(self, which: NDArray[np.bool_]) -> Kept:
        return Kept(
            self.threshold, self.whole, self.keys, self.a[which], self.b[which],
            self.scores[which], self.tiers[which], self.whys[which],
        )  # fmt: skip

    def grown(self, pairs: Iterable[Pairs]) -> Kept:
        """With further pairs, at which nobody looked yet."""
        a, b, scores = zip((self.a, self.b, self.scores), *pairs, strict=True)
        more = sum(map(len, a)) - len(self.a)
        return replace(
            self,
            a=np.concatenate(a),
            b=np.concatenate(b),
            scores=np.concatenate(scores),
            tiers=np.concatenate([self.tiers, np.full(more, UNKNOWN, np.int8)]),
            whys=np.concatenate([self.whys, _words(more)]),
        )

    def seen(self) -> Kept:
        """With those that could not be looked at as unknown, since a later run may be able to."""
        unseen = self.whys == UNSEEN
        return replace(
            self,
            tiers=np.where(unseen, UNKNOWN, self.tiers).astype(np.int8),
            whys=np.where(unseen, "", self.whys),
        )

    def learn(self, other: Kept) -> None:
        """Take over what ``other`` knows of pairs that nobody looked at here."""
        known = other.among(self.keys, positions_in(self.keys, other.keys))
        seen = np.flatnonzero(known.tiers != UNKNOWN)
        new = np.flatnonzero(self.tiers == UNKNOWN)
        n = len(self.keys)
        there = known.a[seen] * n + known.b[seen]
        order = np.argsort(there)
        at = places(there[order], self.a[new] * n + self.b[new])
        found = seen[order[at[at >= 0]]]
        self.tiers[new[at >= 0]], self.whys[new[at >= 0]] = known.tiers[found], known.whys[found]


def _words(n: int) -> NDArray[np.object_]:
    return np.full(n, "", dtype=object)
