"""Where words and eyes disagree: pairs that look alike and are named apart, and the reverse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.base import Positions, Rows

Kind: TypeAlias = Literal["looks alike", "named alike"]

MOST_PAIRS = 50
"""Of each kind."""
FAR_SHARE = 0.01
"""Share of the pairs of one label, the least alike, that are said to look apart."""
_MOST_OF_A_LABEL = 2000  # images, the surest, whose pairs are compared


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images about which words and eyes disagree.

    Attributes:
        kind: ``looks alike`` (near neighbours with other labels) or ``named alike`` (one label,
            and among the 1 % least alike of all pairs of one label).
        a: position of one image.
        b: position of the other.
        score: their cosine in the visual space.
        strength: the larger, the clearer; see :func:`disagreements`.
    """

    kind: Kind
    a: int
    b: int
    score: float
    strength: float


class Judged(NamedTuple):
    """What words say of each image.

    Attributes:
        labels: int64 ``[n]``: number of the best label.
        confidence: float64 ``[n]``: its probability.
        abstained: bool ``[n]``: whether no label fits; such an image is in no pair.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    abstained: NDArray[np.bool_]


def disagreements(
    judged: Judged, near: Positions, scores: NDArray[np.float32], rows: Rows
) -> list[Pair]:
    """The clearest disagreements of both kinds, each image at most once in a kind.

    Pairs that look alike are one of the other's nearest neighbours and have other labels; their
    strength is score × the lesser of both confidences. Pairs that are named alike have one label,
    and a score in the lowest 1 % of such pairs; their strength is (1 - score) × the lesser of both
    confidences. For labels of more than 2,000 images, pairs of the 2,000 surest are looked at.

    Args:
        judged: what words say.
        near: int64 ``[n, k]``: positions of the nearest other images; -1 for none.
        scores: float32 ``[n, k]``: their cosines.
        rows: the visual unit vectors ``[n, dim]``.
    """
    return [*_alike(judged, near, scores), *_apart(judged, rows)]


def _alike(judged: Judged, near: Positions, scores: NDArray[np.float32]) -> list[Pair]:
    first, rank = np.nonzero(near >= 0)
    second, score = near[first, rank], scores[first, rank]
    a, b = np.minimum(first, second), np.maximum(first, second)
    kept = judged.labels[a] != judged.labels[b]
    kept &= ~(judged.abstained[a] | judged.abstained[b])
    pairs, at = np.unique(np.stack([a[kept], b[kept]]), axis=1, return_index=True)
    score = score[kept][at].astype(np.float64)
    strength = score * np.minimum(judged.confidence[pairs[0]], judged.confidence[pairs[1]])
    return _best("looks alike", pairs, score, strength)


def _apart(judged: Judged, rows: Rows) -> list[Pair]:
    groups = list(_groups(judged))
    cosines = [_upper(own, rows) for own in groups]
    if not any(len(found) for found in cosines):
        return []
    far = float(np.quantile(np.concatenate(cosines), FAR_SHARE))
    parts, scores = [np.empty((2, 0), np.int64)], [np.empty(0)]
    for own, found in zip(groups, cosines, strict=True):
        low = np.flatnonzero(found <= far)
        a, b = (side[low] for side in np.triu_indices(len(own), 1))
        parts.append(np.stack([own[a], own[b]]))
        scores.append(found[low].astype(np.float64))
    pairs, score = np.concatenate(parts, axis=1), np.concatenate(scores)
    pairs = np.sort(pairs, axis=0)
    strength = (1.0 - score) * np.minimum(*judged.confidence[pairs])
    return _best("named alike", pairs, score, strength)


def _groups(judged: Judged) -> Iterator[Positions]:
    """The surest images of each label."""
    for label in np.unique(judged.labels):
        own = np.flatnonzero((judged.labels == label) & ~judged.abstained)
        if len(own) > 1:
            order = np.argsort(-judged.confidence[own], kind="stable")
            yield own[order[:_MOST_OF_A_LABEL]]


def _upper(own: Positions, rows: Rows) -> NDArray[np.float32]:
    """Cosines of all pairs of ``own``, in the order of ``np.triu_indices``."""
    vectors = rows.take(own)
    found: NDArray[np.float32] = np.clip(vectors @ vectors.T, -1, 1)[np.triu_indices(len(own), 1)]
    return found


def _best(
    kind: Kind,
    pairs: NDArray[np.int64],
    scores: NDArray[np.float64],
    strength: NDArray[np.float64],
) -> list[Pair]:
    """The strongest pairs, no image twice."""
    seen: set[int] = set()
    found = []
    order: Iterable[int] = np.lexsort((pairs[1], pairs[0], -strength)).tolist()
    for at in order:
        a, b = int(pairs[0, at]), int(pairs[1, at])
        if a not in seen and b not in seen:
            seen |= {a, b}
            found.append(Pair(kind, a, b, float(scores[at]), float(strength[at])))
            if len(found) == MOST_PAIRS:
                break
    return found
