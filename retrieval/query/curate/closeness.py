"""How alone and how typical each image is among the others of its space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.query.space_vectors import SpaceVectors
from retrieval.vectors.tiles import Tell

NEIGHBORS = 20
TWIN = 0.1
"""Below this uniqueness there is another image with a cosine above 0.9."""


class Closeness(NamedTuple):
    """One value an image of the space, in the order of its ids; NaN where there is no other image.

    Attributes:
        uniqueness: float64 ``[n]`` in [0, 1]: 1 - cosine to the nearest other image; 0 says that
            the same picture is there.
        representativeness: float64 ``[n]`` in [0, 1]: mean cosine to the nearest
            :data:`NEIGHBORS` other images, or to all if they are fewer; 0 where it is below.
    """

    uniqueness: NDArray[np.float64]
    representativeness: NDArray[np.float64]


def closeness(vectors: SpaceVectors, tell: Tell | None = None) -> Closeness:
    """Compare every image with all others, exactly.

    Args:
        vectors: of a space; they may be more than memory holds.
        tell: called with the number of finished images, and n.
    """
    scores = vectors.knn_graph(NEIGHBORS, tell=tell).scores.astype(np.float64)
    known = np.isfinite(scores)
    some = known.any(axis=1)
    total = np.where(known, scores, 0.0).sum(axis=1)
    mean = np.full(len(scores), np.nan)
    np.divide(total, known.sum(axis=1), out=mean, where=some)
    nearest = np.where(some, scores[:, 0], np.nan) if scores.shape[1] else mean
    return Closeness(np.clip(1.0 - nearest, 0.0, 1.0), np.clip(mean, 0.0, 1.0))
