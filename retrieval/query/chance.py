"""What scores reach by chance: the borders of a null distribution, and its upper tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

BEST = 5
"""How many hits decide on an answer: a single one may be a hub."""

TINY = 1e-4
"""Below any spread of real scores."""

_TAIL = 0.1  # share of the scores that is taken for the upper tail
_NORMAL_95, _NORMAL_99 = 1.645, 2.326  # quantiles of the normal distribution


@dataclass(frozen=True, slots=True)
class Band:
    """Two borders: below 0 there is no good match, from 1 on there is one."""

    low: float
    width: float

    def place(self, values: Floats) -> Floats:
        """Where ``values`` stand: 0 at the lower border, 1 at the upper one."""
        return np.asarray((values - self.low) / self.width)


@dataclass(frozen=True, slots=True)
class Tail:
    """How much better the best scores get by chance as there are more images.

    A generalised Pareto tail (Pickands, "Statistical inference using extreme order statistics",
    1975), fitted by moments (Hosking and Wallis, 1987).
    """

    shape: float
    scale: float

    def growth(self, size: int, sample: int) -> Floats:
        """Difference of the best scores among ``size`` and ``sample`` images: ``[BEST]``."""
        return self._best(size) - self._best(sample)

    def _best(self, size: int) -> Floats:
        rarity = np.minimum((np.arange(BEST) + 0.6) / size, 0.5)
        if self.shape > -1e-3:
            return np.asarray(self.scale * np.log(_TAIL / rarity))
        return np.asarray(self.scale / self.shape * ((_TAIL / rarity) ** self.shape - 1))


def fit_tail(values: Floats) -> Tail:
    """The common upper tail of all rows: what is above each row's own threshold, pooled."""
    count = max(BEST, int(_TAIL * values.shape[1]))
    top = -np.partition(-values, count, axis=1)[:, : count + 1]
    above = top[:, :count] - top[:, count:]
    mean, variance = float(above.mean()), float(above.var())
    if mean < TINY or variance < TINY**2:
        return Tail(0.0, 0.0)
    ratio = mean**2 / variance
    # Cosines end at 1: a tail that is heavier than exponential is noise or near copies.
    shape = min(0.0, (1 - ratio) / 2)
    return Tail(shape, mean * (1 - shape))


def above_nearly_all(values: Floats) -> Band:
    """Borders that unanswerable queries pass in one of 20 and one of 100 cases."""
    mean, deviation = float(values.mean()), max(float(values.std()), TINY)
    return Band(mean + _NORMAL_95 * deviation, (_NORMAL_99 - _NORMAL_95) * deviation)


def like_most(values: Floats) -> Band:
    """Borders that 5 % and 25 % of the collection's own pictures stay below."""
    low, high = (float(border) for border in np.quantile(values, [0.05, 0.25]))
    return Band(low, max(high - low, TINY))
