"""The anomaly detector for vectors of one's own, after scikit-learn's conventions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.encoders.base import unit_rows
from retrieval.errors import QueryError
from retrieval.query.anomaly.images import NEIGHBORS, Method, Normals
from retrieval.query.anomaly.limits import DEFAULT_RATE, Limit, check_rate, fit_limit
from retrieval.query.anomaly.limits import held_out_scores as held_out
from retrieval.types import Embeddings


class AnomalyDetector:
    """Tells which vectors are unlike those it was fitted to.

    As scikit-learn's outlier detectors: ``predict`` gives 1 for normal and -1 for odd, and
    ``score_samples`` and ``decision_function`` are *higher* for what is more normal.
    :meth:`anomaly_score` is the score as the rest of this project tells it: more is worse.

    Attributes:
        n_features_in_: length of a vector.
        limit_: the :class:`~.limits.Limit` that was fitted.
        offset_: the value of ``score_samples`` below which a vector is odd; -inf if there are too
            few vectors to say.
    """

    def __init__(
        self,
        method: Method = "distance",
        n_neighbors: int = NEIGHBORS,
        false_alarm_rate: float = DEFAULT_RATE,
    ) -> None:
        """Set what :meth:`fit` does.

        Args:
            method: ``distance``, ``density`` or ``mahalanobis``; see :mod:`~.images`.
            n_neighbors: k of the first two.
            false_alarm_rate: share of normal vectors that may be called odd.
        """
        self.method = method
        self.n_neighbors = n_neighbors
        self.false_alarm_rate = false_alarm_rate

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """The parameters by name."""
        names = ("method", "n_neighbors", "false_alarm_rate")
        return {name: getattr(self, name) for name in names}

    def fit(self, X: ArrayLike, y: object = None) -> AnomalyDetector:
        """Learn from normal vectors ``[n, dim]``, of any length but 0.

        Raises:
            QueryError: if the shape does not fit, a vector is zero or not finite, or there are too
                few.
        """
        check_rate(self.false_alarm_rate)
        vectors = _vectors(X)
        self._normals = Normals(vectors, self.method, self.n_neighbors)
        self.n_features_in_ = vectors.shape[1]
        scores = held_out(vectors, self.method, self.n_neighbors)
        self.limit_: Limit = fit_limit(scores, self.false_alarm_rate)
        edge = self.limit_.threshold
        self.offset_ = -np.inf if edge is None else -edge
        return self

    def anomaly_score(self, X: ArrayLike) -> NDArray[np.float64]:
        """float64 ``[n]``: how odd vectors are; more is worse.

        Raises:
            QueryError: if nothing was fitted, or the vectors do not fit.
        """
        if not hasattr(self, "_normals"):
            raise QueryError("the detector knows nothing yet: call fit with normal vectors")
        vectors = _vectors(X)
        if vectors.shape[1] != self.n_features_in_:
            raise QueryError(
                f"vectors have {vectors.shape[1]} values, and the normal ones {self.n_features_in_}"
            )
        return self._normals.score(vectors)

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """float64 ``[n]``: minus :meth:`anomaly_score`; higher is more normal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """float64 ``[n]``: :meth:`score_samples` minus :attr:`offset_`; below 0 is odd."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """int64 ``[n]``: -1 for what is odd, 1 for all else."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _vectors(given: ArrayLike) -> Embeddings:
    rows = np.asarray(given, dtype=np.float32)
    if rows.ndim != 2:
        raise QueryError(f"vectors are an array [n, dim], not of shape {list(rows.shape)}")
    try:
        return unit_rows(rows)
    except ValueError as error:
        raise QueryError("a vector is zero or not finite, and has no direction") from error
