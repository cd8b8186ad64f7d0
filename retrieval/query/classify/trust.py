"""How far votes can be trusted: calibrated confidence, prediction sets, and what is like nothing.

All of it is fitted to exemplars that are classified by the others (leave-one-out).

Confidence: before it is read as a probability, one more neighbour joins the vote whose share is
split equally among all classes, so that no class is impossible; then temperature scaling (Guo et
al., "On calibration of modern neural networks", 2017): p^(1 / τ), normalised, with the τ that
minimises the negative log-likelihood of the true classes.

Prediction sets: split-conformal, least ambiguous sets (LAC; Sadinle, Lei and Wasserman, "Least
ambiguous set-valued classifiers with bounded error levels", 2019): all classes whose probability p
has 1 - p at most the ⌈(n + 1) · coverage⌉-th smallest value of 1 - p(true class). For exemplars set
aside, the true class is in the set of a new image with a probability of at least ``coverage``,
averaged over images drawn as the exemplars were. Here the n exemplars also vote for one another,
which makes that promise an approximation; it says nothing of one class or of another kind of
images.

Unlike everything: an image whose nearest exemplar scores lower than nearly all exemplars' own
nearest do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.query.classify.votes import Codes, Floats

UNLIKE_SHARE = 0.01
"""Share of the exemplars that would be called unlike all others."""
FEWEST = 50
"""Exemplars that have another of their class, below which nothing is fitted."""
BINS = 15

_GOLDEN = (5**0.5 - 1) / 2
_RANGE = (-3.0, 3.0)  # of log τ
_STEPS = 40


@dataclass(frozen=True, slots=True)
class Trust:
    """What leave-one-out says of confidence.

    Attributes:
        tau: temperature of the confidence; below 1 votes were too modest, above it too sure.
        error_before: expected calibration error of the votes as they are, on the sample.
        error_after: the same of the calibrated confidence.
        coverage: what prediction sets promise.
        border: a class is in the set if 1 - its probability is at most this.
        unlike_below: an image whose nearest exemplar scores less is unlike all of them.
        answer_from: confidence from which on the wanted accuracy is reached; None if no accuracy
            was asked for, ``inf`` if none reaches it.
        sample: how many exemplars it was fitted to.
    """

    tau: float
    error_before: float
    error_after: float
    coverage: float
    border: float
    unlike_below: float
    answer_from: float | None
    sample: int

    def calibrated(self, found: Floats, k: int | NDArray[np.int64]) -> Floats:
        """Probabilities that can be read as such, from votes ``[q, classes]`` of k neighbours.

        ``k`` may be ``[q, 1]`` where not all had as many.
        """
        return scaled(smoothed(found, k), self.tau)

    def members(self, probabilities: Floats) -> NDArray[np.bool_]:
        """Which classes are in the prediction sets: ``[q, classes]``."""
        found: NDArray[np.bool_] = 1 - probabilities <= self.border
        return found


def fit(
    found: Floats,
    nearest: NDArray[Any],
    codes: Codes,
    k: int,
    coverage: float,
    min_accuracy: float | None,
) -> Trust:
    """Fit to exemplars that were classified by the others.

    Args:
        found: votes ``[n, classes]``.
        nearest: ``[n]`` score of each one's nearest other.
        codes: int64 ``[n]``: the true class of each.
        k: how many neighbours voted.
        coverage: in (0, 1).
        min_accuracy: wanted of what is answered; None for nothing.
    """
    smooth, n = smoothed(found, k), len(codes)
    true = np.arange(n), codes
    tau = minimum(lambda value: -float(np.log(scaled(smooth, value)[true]).mean()))
    probabilities = scaled(smooth, tau)
    right = probabilities.argmax(axis=1) == codes
    confidence = probabilities.max(axis=1)
    return Trust(
        tau=tau,
        error_before=calibration_error(found.max(axis=1), right),
        error_after=calibration_error(confidence, right),
        coverage=coverage,
        border=conformal_border(1 - probabilities[true], coverage),
        unlike_below=float(np.quantile(nearest, UNLIKE_SHARE, method="lower")),
        answer_from=None if min_accuracy is None else reached(confidence, right, min_accuracy),
        sample=n,
    )


def smoothed(found: Floats, k: int | NDArray[np.int64]) -> Floats:
    """Votes ``[q, classes]`` of k neighbours, and of one more for all classes alike."""
    told: Floats = (k * found + 1 / found.shape[1]) / (k + 1)
    return told


def scaled(probabilities: Floats, tau: float) -> Floats:
    """Probabilities above 0 to the power 1 / τ, normalised."""
    logs = np.log(probabilities) / tau
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def minimum(loss: Callable[[float], float]) -> float:
    """The τ from e⁻³ to e³ at which ``loss`` is least, by golden-section search over its log."""
    low, high = _RANGE
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(float(np.exp(left))), loss(float(np.exp(right)))
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(float(np.exp(left)))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(float(np.exp(right)))
    return float(np.exp((low + high) / 2))


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap of confidence and accuracy.

    Over 15 bins of equal width, weighed by how many fall into each.
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def conformal_border(misfits: Floats, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest; ``inf`` if there are too few, so that all fit."""
    rank = ceil((len(misfits) + 1) * coverage - 1e-9)
    return float(np.sort(misfits)[rank - 1]) if rank <= len(misfits) else float("inf")


def reached(confidence: Floats, right: NDArray[np.bool_], accuracy: float) -> float:
    """The lowest confidence from which on so large a share is right; ``inf`` if there is none."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(
        confidence[order][1:] < confidence[order][:-1], True
    )  # equal ones stay together
    fits = np.flatnonzero(last & (share >= accuracy))
    return float(confidence[order][fits[-1]]) if len(fits) else float("inf")
