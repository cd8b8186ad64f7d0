"""Measured shares with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_Z = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Share:
    """A measured share with its 95 % interval.

    Attributes:
        value: in [0, 1].
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def wilson(share: float, count: float) -> Share:
    """A share of ``count`` independent cases with its 95 % interval.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    square = _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * float(np.sqrt(share * (1 - share) / count + square / (4 * count)))
    return Share(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
