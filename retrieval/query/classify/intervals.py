"""Accuracies with percentile bootstrap intervals over images (Efron 1979)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.query.shares import Share

RESAMPLES = 2000


def accuracies(right: NDArray[np.int64], sizes: NDArray[np.int64], seed: int) -> list[Share]:
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
        Share(value, *(float(end) for end in np.quantile(draws, [0.025, 0.975])))
        for value, draws in zip(values, (plain, balanced), strict=True)
    ]
