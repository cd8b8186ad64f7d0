"""Votes of neighbours: the weighted kNN classifier of self-supervised learning.

Neighbours by cosine s vote with weight exp(s / T): Wu et al., "Unsupervised feature learning via
non-parametric instance discrimination" (2018); Caron et al., "Emerging properties in
self-supervised vision transformers" (2021), whose k (10, 20, 100, 200) and T = 0.07 the evaluation
of DINOv2 (Oquab et al. 2023) takes over. There the weights of the k neighbours are summed as they
are; here they are divided by their sum, so that probabilities sum to one for every k.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import QueryError

K = 20
TEMPERATURE = 0.07

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]
"""Numbers of classes, from 0; -1 where there is no neighbour."""


def shares(scores: NDArray[Any], temperature: float = TEMPERATURE) -> Floats:
    """What share of the vote each neighbour has, before classes are balanced.

    Args:
        scores: ``[q, k]`` cosines, ``-inf`` where there are fewer than k neighbours.
        temperature: above 0; the smaller, the more the nearest decide.

    Returns:
        float64 ``[q, k]``; every row sums to one.

    Raises:
        QueryError: if the temperature makes no sense, or a query has no neighbour.
    """
    check_temperature(temperature)
    exact = np.asarray(scores, dtype=np.float64)
    if exact.ndim != 2 or not np.isfinite(best := exact.max(axis=1, initial=-np.inf)).all():
        raise QueryError("every query needs at least one neighbour with a finite score to vote")
    weights = np.exp((exact - best[:, None]) / temperature)  # the best one weighs 1: no overflow
    found: Floats = np.asarray(weights / weights.sum(axis=1, keepdims=True))
    return found


def votes(
    scores: NDArray[Any],
    codes: Codes,
    classes: int,
    temperature: float = TEMPERATURE,
    sizes: ArrayLike | None = None,
) -> Floats:
    """Probabilities of the classes: each one's share of the neighbours' weights exp(score / T).

    Args:
        scores: ``[q, k]`` cosines, ``-inf`` where there are fewer than k neighbours.
        codes: int64 ``[q, k]``: the class of each neighbour.
        classes: how many there are.
        temperature: above 0.
        sizes: ``[classes]`` or ``[q, classes]``: divide each vote by the number of exemplars of
            its class, so that a class does not win by being frequent; None for votes as they are.

    Returns:
        float64 ``[q, classes]``; every row sums to one. Among equal classes the first is best.

    Raises:
        QueryError: if the temperature makes no sense, or a query has no neighbour.
    """
    weights = shares(scores, temperature)
    there = np.isfinite(scores)
    rows = np.broadcast_to(np.arange(len(weights))[:, None], weights.shape)
    cells = (rows * classes + codes)[there]
    summed = np.bincount(cells, weights=weights[there], minlength=len(weights) * classes)
    total: Any = summed.reshape(len(weights), classes)
    if sizes is not None:
        total = total / np.maximum(np.asarray(sizes, dtype=np.float64), 1)
    found: Floats = total / total.sum(axis=1, keepdims=True)
    return found


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that weights cannot be made with.

    Raises:
        QueryError: if it is not a number above 0.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise QueryError(f"a temperature is a number above 0, as 0.07, not {temperature}")
