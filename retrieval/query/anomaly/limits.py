"""From which score on something is an anomaly: a limit at a stated rate of false alarms.

Normal images are scored as if they were new, each against the others. If a new normal image is as
any of those n, its score is equally likely to have each rank among the n + 1; so it exceeds the
score of rank ceil((n + 1)(1 - rate)) with a probability of at most the rate (Vovk et al.,
"Algorithmic Learning in a Random World", 2005; Lei et al., 2018). Leaving one out instead of
setting some aside makes this near and not exact (Barber et al., "Predictive inference with the
jackknife+", 2021): an image that is really new is compared with one normal more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from retrieval.errors import QueryError
from retrieval.query.anomaly.images import Method, Normals
from retrieval.types import Embeddings

DEFAULT_RATE = 0.05
_FOLDS = 10
_ALONE = 50  # up to so many each is left out alone


@dataclass(frozen=True, slots=True)
class Limit:
    """Where anomalies begin.

    Attributes:
        threshold: scores above it are anomalies; None if there are too few normal images to say.
        false_alarm_rate: share of normal images that are expected above it, at most; it is more
            than what was asked for where the normals are few. None without a threshold.
        normals: how many normal images were scored for it.
        note: what to know about it; empty where it is as asked.
    """

    threshold: float | None
    false_alarm_rate: float | None
    normals: int
    note: str = ""

    def exceeded(self, score: float) -> bool | None:
        """Whether a score is an anomaly's; None if there is no threshold."""
        return None if self.threshold is None else score > self.threshold


def fit_limit(scores: ArrayLike, rate: float = DEFAULT_RATE) -> Limit:
    """The limit for a rate of false alarms.

    Args:
        scores: ``[n]`` of normal images, each as if it were new.
        rate: of false alarms, between 0 and 1.

    Raises:
        QueryError: if the rate makes no sense.
    """
    check_rate(rate)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    if n < 2:
        return Limit(None, None, n, "too few normal images for a threshold: scores only")
    rank = math.ceil((n + 1) * (1 - rate) - 1e-9)
    if rank <= n:
        return Limit(float(ordered[rank - 1]), rate, n)
    promised, needed = 1 / (n + 1), math.ceil(1 / rate - 1e-9) - 1
    note = (
        f"{n} normal images promise a false alarm rate of {promised:.3f} at best; {rate:g} needs "
        f"{needed}"
    )
    return Limit(float(ordered[-1]), promised, n, note)


def held_out_scores(vectors: Embeddings, method: Method, k: int) -> list[float]:
    """The scores ``[n]`` of normal vectors, each against others than itself.

    Up to 50 are left out one by one, more in ten folds that take every tenth. None where so few
    are left that the method has nothing to stand on.
    """
    n = len(vectors)
    folds = n if n <= _ALONE else _FOLDS
    if n < 2 or (method != "distance" and n < 3):
        return []
    scores = np.empty(n)
    fold = np.arange(n) % folds
    for number in range(folds):
        out = fold == number
        scores[out] = Normals(vectors[~out], method, k).score(vectors[out])
    return [float(score) for score in scores]


def check_rate(rate: float) -> None:
    """Refuse what is no rate of false alarms.

    Raises:
        QueryError: if it is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise QueryError(f"a false alarm rate is between 0 and 1, as 0.05; not {rate}")
