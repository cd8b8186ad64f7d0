"""Measured shares with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Measured:
    """A share, and its 95 % percentile bootstrap interval over images (Efron 1979).

    Attributes:
        value: in [0, 1].
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def accuracies(right: NDArray[np.int64], sizes: NDArray[np.int64], seed: int) -> list[Measured]:
    """Accuracy, and balanced accuracy: the mean over classes of the share that is right.

    Images are drawn with replacement. All that counts of a draw is how many of each class are right
    and wrong, so that these are drawn, from a multinomial distribution.

    Args:
        right: int64 ``[classes]``: how many of each class are right.
        sizes: int64 ``[classes]``: how many there are; at least one in all.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    cells = np.concatenate([right, sizes - right])
    drawn = rng.multinomial(int(sizes.sum()), cells / cells.sum(), size=RESAMPLES)
    hits = drawn[:, : len(right)]
    there = hits + drawn[:, len(right) :]
    plain = hits.sum(axis=1) / there.sum(axis=1)
    each = hits / np.maximum(there, 1)
    balanced = each.sum(axis=1) / np.count_nonzero(there, axis=1)
    known = sizes > 0
    values = (
        float(right.sum() / sizes.sum()),
        float((right[known] / sizes[known]).mean()),
    )
    return [
        Measured(value, *(float(end) for end in np.quantile(draws, [0.025, 0.975])))
        for value, draws in zip(values, (plain, balanced), strict=True)
    ]
