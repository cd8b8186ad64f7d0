"""Principal axes of vectors that come in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_RANK = 1e-13  # of the mean squared length: a variance below it is what rounding leaves
_EPSILON = 1e-6  # of the largest variance: what is added before dividing by an axis's


class Moments:
    """Sums of vectors ``[dim]`` and of their products, in float64."""

    def __init__(self, dim: int) -> None:
        """Have seen none."""
        self._count = 0
        self._sum = np.zeros(dim)
        self._products = np.zeros((dim, dim))

    def add(self, block: NDArray[Any]) -> None:
        """Take in rows ``[m, dim]``."""
        rows = block.astype(np.float64)
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Where the vectors lie and along what they differ, by principal component analysis.

        Returns:
            Their mean ``[dim]``; the principal axes ``[dim, r]`` as columns, most variance first,
            each with its largest entry positive, so that a fit is the same everywhere; and what
            whitening divides by ``[r]``: the standard deviation on each axis, with a millionth of
            the largest variance added to the variance, so that an axis of noise stays quiet.
        """
        mean = self._sum / self._count
        covariance = (self._products - self._count * np.outer(mean, mean)) / (self._count - 1)
        variances, axes = np.linalg.eigh(covariance)
        variances, axes = variances[::-1], axes[:, ::-1]
        rank = int(np.sum(variances > _RANK * np.trace(self._products) / self._count))
        variances, axes = variances[:rank], axes[:, :rank]
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(rank)])
        return mean, axes, np.sqrt(variances + _EPSILON * variances[:1])
