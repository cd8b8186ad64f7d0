"""Anomaly scores of whole images from their vectors: how far from the normal ones.

More is worse. Three ways to say it:

``distance``: 1 - cosine to the k-th nearest normal vector.

``density``: the local outlier factor (Breunig et al., "LOF: Identifying Density-Based Local
Outliers", 2000) with d = 1 - cosine. With N(x) the k nearest normals of x and d_k(y) the distance
of a normal y to its own k-th nearest other one, reach(x, y) = max(d_k(y), d(x, y)), the density
of x is 1 / (1e-10 + mean of reach(x, y) over y in N(x)), and the score is the mean density of
N(x) over that of x: about 1 among normals, more where they are denser than around x.

``mahalanobis``: sqrt((x - m)' C^-1 (x - m)) with the mean m of the normals and their covariance C
as shrunk by Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
matrices" (2004): C = (1 - s) S + s (tr S / p) I. With Z the centred normals, S = Z'Z / n and the
squared norm |A|² = tr(A'A) / p: d² = |S - (tr S / p) I|², b² = min(d², sum of |z z' - S|² / n²),
s = b² / d². This is the length of x - m in the space that C whitens.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.types import Embeddings

Method: TypeAlias = Literal["distance", "density", "mahalanobis"]
NEIGHBORS = 3
"""k, or as many other normals as there are."""
_BLOCK = 1024
_TINY = 1e-10


class Normals:
    """Vectors of normal images, ready to score others against them."""

    def __init__(
        self, vectors: Embeddings, method: Method = "distance", k: int = NEIGHBORS
    ) -> None:
        """Learn what is normal.

        Args:
            vectors: unit rows ``[n, dim]``, finite; not copied.
            method: see the module.
            k: neighbours of ``distance`` and ``density``; fewer where there are fewer normals.

        Raises:
            QueryError: if there are too few vectors (``density`` and ``mahalanobis`` need two that
                differ), or no such method.
        """
        if method not in get_args(Method):
            raise QueryError(f"no method {method!r}; there are {', '.join(get_args(Method))}")
        if k < 1:
            raise QueryError(f"k is at least 1, not {k}")
        if not len(vectors):
            raise QueryError("there is no normal vector to compare with")
        if method != "distance" and len(vectors) < 2:
            raise QueryError(f"{method} needs two normal images at least; take distance")
        self._vectors, self.method = vectors, method
        self._k = min(k, max(1, len(vectors) - (method == "density")))
        if method == "density":
            self._own, near = self._nearest(vectors, skip_self=True)
            self._edge = self._own[:, -1]
            self._density = self._densities(self._own, near)
        elif method == "mahalanobis":
            self._mean, self._whitening = whitening(vectors)

    def score(self, queries: Embeddings) -> NDArray[np.float64]:
        """float64 ``[q]``, 0 or more, of unit rows ``[q, dim]``; more is worse."""
        if self.method == "mahalanobis":
            white = (queries.astype(np.float64) - self._mean) @ self._whitening
            return np.asarray(np.linalg.norm(white, axis=1))
        distances, near = self._nearest(queries)
        if self.method == "distance":
            return distances[:, -1]
        own = self._densities(distances, near)
        return np.asarray(self._density[near].mean(axis=1) / own)

    def _densities(
        self, distances: NDArray[np.float64], near: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        reach = np.maximum(self._edge[near], distances)
        return np.asarray(1 / (_TINY + reach.mean(axis=1)))

    def _nearest(
        self, queries: Embeddings, *, skip_self: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances and positions ``[q, k]`` of the nearest normals, nearest first."""
        found = np.empty((len(queries), self._k)), np.empty((len(queries), self._k), np.int64)
        for at in range(0, len(queries), _BLOCK):
            part = queries[at : at + _BLOCK].astype(np.float64)
            far = np.clip(1 - part @ self._vectors.T.astype(np.float64), 0.0, 2.0)
            if skip_self:
                far[np.arange(len(part)), at + np.arange(len(part))] = np.inf
            order = np.argsort(far, axis=1, kind="stable")[:, : self._k]
            found[0][at : at + _BLOCK] = np.take_along_axis(far, order, axis=1)
            found[1][at : at + _BLOCK] = order
        return found


def whitening(vectors: Embeddings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean ``[dim]`` and a matrix ``[dim, dim]`` under which normals have covariance 1.

    Raises:
        QueryError: if all vectors are the same.
    """
    rows = vectors.astype(np.float64)
    mean = rows.mean(axis=0)
    shrunk = ledoit_wolf(rows - mean)
    values, axes = np.linalg.eigh(shrunk)
    if values[0] <= _TINY * max(values[-1], _TINY):
        raise QueryError("mahalanobis needs normal images that differ; take distance")
    return mean, axes / np.sqrt(values)


def ledoit_wolf(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shrunk covariance ``[dim, dim]`` of centred rows ``[n, dim]``; see the module."""
    n, dim = centred.shape
    sample = centred.T @ centred / n
    level = np.trace(sample) / dim
    target = level * np.eye(dim)
    spread = ((sample - target) ** 2).sum() / dim
    # sum of |z z' - S|² over rows = sum of |z|⁴ - n |S|², each divided by dim
    lengths = (centred**2).sum(axis=1)
    noise = ((lengths**2).sum() - n * (sample**2).sum()) / dim / n**2
    share = 1.0 if spread <= 0 else min(1.0, max(0.0, noise / spread))
    return np.asarray((1 - share) * sample + share * target)
