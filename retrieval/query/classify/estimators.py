"""The kNN classifier for arrays, by the conventions of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import InstallError
from retrieval.query.classify.search import search
from retrieval.query.classify.votes import TEMPERATURE, K, votes
from retrieval.types import Embeddings

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise InstallError("estimators need scikit-learn: pip install 'retrieval[learn]'") from error

_CELLS = 1 << 21  # of votes that are held at a time


class KNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Neighbours by cosine that vote with weight exp(score / T).

    See :mod:`retrieval.query.classify.votes`. Rows are scaled to unit length here; a row of zeros
    has a cosine of 0 with every other.

    Args:
        k: neighbours that vote; all rows where these are fewer.
        temperature: of the votes; the smaller, the more the nearest decide.
        balanced: divide votes by the number of rows of their class.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: dimension of the rows.
    """

    def __init__(
        self, k: int = K, temperature: float = TEMPERATURE, balanced: bool = False
    ) -> None:
        """Keep the parameters; :meth:`fit` looks at them."""
        self.k = k
        self.temperature = temperature
        self.balanced = balanced

    def fit(self, X: Any, y: Any) -> KNNClassifier:
        """Remember rows ``[n, dim]`` and their labels ``[n]``.

        Raises:
            ValueError: for what scikit-learn refuses, as NaN; if k is below 1.
        """
        if self.k < 1:
            raise ValueError(f"k is at least 1, not {self.k}")
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, self._codes = np.unique(labels, return_inverse=True)
        self._rows = _unit(rows)
        return self

    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | NDArray[np.int64]:
        """The nearest rows, as scikit-learn gives them: cosine *distances*, 1 - score.

        Args:
            X: ``[q, dim]``; None for the rows that were fitted, each without itself.
            n_neighbors: how many; ``k`` by default, and never more than there are.
            return_distance: whether distances ``[q, k]`` come before positions ``[q, k]``.
        """
        check_is_fitted(self)
        found = self._nearest(X, self.k if n_neighbors is None else n_neighbors)
        return (1 - found[1].astype(np.float64), found[0]) if return_distance else found[0]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """float64 ``[q, classes]`` for rows ``[q, dim]``; every row sums to one."""
        check_is_fitted(self)
        at, scores = self._nearest(X, self.k)
        classes = len(self.classes_)
        sizes = np.bincount(self._codes, minlength=classes) if self.balanced else None
        found = np.empty((len(at), classes))
        for first in range(0, len(at), step := max(1, _CELLS // classes)):
            some = slice(first, first + step)
            codes = self._codes[at[some]]
            found[some] = votes(scores[some], codes, classes, self.temperature, sizes)
        return found

    def predict(self, X: Any) -> NDArray[Any]:
        """The best label of each row ``[q, dim]``."""
        check_is_fitted(self)
        best: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return best

    def _nearest(self, X: Any, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        n = len(self._rows)
        if k < 1:
            raise ValueError(f"the number of neighbours is at least 1, not {k}")
        all_rows = [(np.arange(n), self._rows)]
        if X is None:
            return search(all_rows, self._take, self._rows, min(k, n - 1), np.arange(n))
        queries = _unit(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))
        return search(all_rows, self._take, queries, min(k, n))

    def _take(self, positions: NDArray[np.int64]) -> Embeddings:
        return self._rows[positions]


def _unit(rows: NDArray[np.floating]) -> Embeddings:
    exact: Any = rows.astype(np.float64)
    least = np.finfo(np.float64).tiny  # in place of 0, which nothing is divided by
    exact /= np.maximum(np.abs(exact).max(axis=1, keepdims=True), least)  # so that squares fit
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), least)
    unit: Embeddings = exact.astype(np.float32)
    return unit
