"""Other orders than by score: diverse, judged in a second space, or after a second look.

Every hit keeps its score, which is its exact cosine to the query in the space that was searched;
what changes is who is found, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.types import Embeddings, Neighbors

POOL = 5
"""So many candidates for each wanted hit are ordered anew, but at least 50."""
_LEAST_POOL = 50
_PROTOTYPE = 5
_FEEDBACK_WEIGHT = 0.75


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the nearest images become an answer.

    Attributes:
        diversity: from 0, the nearest, to 1, as unlike each other as they can be.
        rerank: name of a second space that has a say in the order.
        rerank_weight: its share, from 0 to 1.
        feedback: number of first hits that are taken for right, to search again near them.
    """

    diversity: float = 0.0
    rerank: str | None = None
    rerank_weight: float = 0.5
    feedback: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("diversity", "rerank_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise QueryError(f"{name} is from 0 to 1, not {getattr(self, name)}")
        if self.feedback < 0:
            raise QueryError(f"feedback is a number of hits, not {self.feedback}")

    @property
    def plain(self) -> bool:
        """Whether the order is just that of the scores."""
        return not (self.diversity or self.rerank or self.feedback)

    def pool(self, k: int) -> int:
        """How many candidates it takes to answer ``k``."""
        return max(_LEAST_POOL, POOL * k) if self.diversity or self.rerank else k


def ranked(
    find: Callable[[Embeddings, int], Neighbors],
    vectors_of: Callable[[str | None, NDArray[np.int64]], Embeddings],
    query: Embeddings,
    k: int,
    ranking: Ranking,
) -> Neighbors:
    """The answer to one query in the order that ``ranking`` asks for.

    Args:
        find: the nearest images ``[1, n]`` to a query.
        vectors_of: unit vectors of images in the named space, None for the one that is searched.
        query: ``[1, dim]``, unit length.
        k: number of hits.
        ranking: what the order is made of.

    Returns:
        Neighbours ``[1, ≤ k]``; their scores need not fall.
    """
    if ranking.feedback:
        liked = find(query, ranking.feedback).ids[0]
        query = nearer(query, vectors_of(None, liked[liked >= 0])) if liked[0] >= 0 else query
    found = find(query, ranking.pool(k))
    kept = found.ids[0] >= 0
    ids, scores = found.ids[0, kept], found.scores[0, kept]
    if len(ids) == 0 or not (ranking.rerank or ranking.diversity):
        return Neighbors(ids[None, :k], scores[None, :k])
    values = scores
    if ranking.rerank:
        others = vectors_of(ranking.rerank, ids)
        second = (others @ prototype(others, scores).T)[:, 0]
        values = blended(scores, second, ranking.rerank_weight)
    if ranking.diversity:
        order = diverse(vectors_of(None, ids), values, k, ranking.diversity)
    else:
        order = np.lexsort((ids, -values))[:k]
    return Neighbors(ids[None, order], scores[None, order])


def nearer(query: Embeddings, liked: Embeddings) -> Embeddings:
    """A query moved towards images that are taken for right.

    Rocchio's pseudo-relevance feedback without its negative part (C. D. Manning, P. Raghavan and
    H. Schütze, "Introduction to Information Retrieval", 2008, §9.1; weight 0.75).

    Args:
        query: ``[1, dim]``, unit length.
        liked: ``[n, dim]``, unit rows.

    Returns:
        ``[1, dim]``, unit length.
    """
    centre = liked.mean(axis=0)
    centre /= max(float(np.linalg.norm(centre)), 1e-12)
    moved = query + np.float32(_FEEDBACK_WEIGHT) * centre
    return np.asarray(moved / np.linalg.norm(moved), dtype=np.float32)


def prototype(vectors: Embeddings, scores: NDArray[np.float32]) -> Embeddings:
    """What the first hits have in common in another space, as a query ``[1, dim]`` there.

    Args:
        vectors: of the hits in that space, best first.
        scores: of the hits; the better ones weigh more.
    """
    n = min(_PROTOTYPE, len(vectors))
    weights = scores[:n] - scores[: n + 1].min() + np.float32(1e-3)
    centre = (weights[:, None] * vectors[:n]).sum(axis=0)
    return np.asarray(centre / max(float(np.linalg.norm(centre)), 1e-12), np.float32)[None]


def blended(
    first: NDArray[np.float32], second: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Values by which two spaces order candidates together.

    Cosines of two spaces spread differently, so each is counted in its own standard deviations.

    Args:
        first: scores ``[n]`` in the space that was searched.
        second: scores ``[n]`` in the other.
        weight: of the other, from 0 to 1.
    """
    return np.asarray((1 - weight) * _standard(first) + weight * _standard(second), np.float32)


def diverse(
    vectors: Embeddings, values: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Choose k candidates that are good and unlike each other, the best one first.

    Maximal marginal relevance (J. Carbonell and J. Goldstein, "The Use of MMR, Diversity-Based
    Reranking for Reordering Documents and Producing Summaries", SIGIR 1998): each next one has the
    largest ``(1 − diversity) · value − diversity · (cosine to the most similar one chosen)``. Both
    are scaled first, so that the best candidate is 1 from the worst, and from the least like it.

    Args:
        vectors: ``[n, dim]``, unit rows.
        values: ``[n]``, how good each is.
        k: how many.
        diversity: from 0 to 1.

    Returns:
        Indexes into the candidates ``[min(k, n)]``, in the order chosen.
    """
    n = len(values)
    spread = float(np.ptp(values)) or 1.0
    good = (values - values.min()) / spread
    chosen = [int(np.argmax(good))]
    nearest = vectors @ vectors[chosen[0]]
    low = float(nearest.min())
    scale = max(1.0 - low, 1e-6)
    left = np.ones(n, dtype=bool)
    left[chosen[0]] = False
    while len(chosen) < min(k, n):
        marginal = (1 - diversity) * good - diversity * (nearest - low) / scale
        marginal[~left] = -np.inf
        best = int(np.argmax(marginal))
        chosen.append(best)
        left[best] = False
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
    return np.asarray(chosen, dtype=np.int64)


def _standard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6), np.float32)
