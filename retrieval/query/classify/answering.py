"""From vectors to predictions, with their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.classify.exemplars import Exemplars
from retrieval.query.classify.predictions import Evidence, Judged, Prediction, Predictions, judge
from retrieval.query.classify.trust import Trust
from retrieval.query.classify.votes import check_temperature
from retrieval.store import Store
from retrieval.types import Embeddings
from retrieval.vectors.base import Positions
from retrieval.vectors.sorted_ids import places


@dataclass(frozen=True, slots=True)
class Asked:
    """How to classify; see :meth:`Classifying.classify`."""

    labels: str
    k: int
    temperature: float
    balanced: bool
    where: str | None
    space: str
    coverage: float
    min_accuracy: float | None

    def __post_init__(self) -> None:
        """Refuse what makes no sense, before any picture is read."""
        if self.k < 1:
            raise QueryError(f"k is at least 1, not {self.k}")
        check_temperature(self.temperature)
        if not 0 < self.coverage < 1:
            raise QueryError(f"a coverage is between 0 and 1, as 0.9, not {self.coverage}")
        if self.min_accuracy is not None and not 0 < self.min_accuracy <= 1:
            raise QueryError(f"an accuracy is above 0 and at most 1, not {self.min_accuracy}")


def predicted(
    store: Store,
    exemplars: Exemplars,
    queries: Embeddings,
    asked: Asked,
    trust: Trust | None,
    uris: Sequence[str | None],
    ids: NDArray[np.int64] | None,
) -> list[Prediction]:
    """Predictions of some queries.

    Args:
        store: to read records from.
        exemplars: that vote.
        queries: float32 ``[q, dim]``, unit rows.
        asked: how to classify.
        trust: how to calibrate; None where that could not be fitted.
        uris: of the queries, as far as they have one.
        ids: int64 ``[q]`` of stored images, which have no vote on themselves; None for others.
    """
    if not len(queries):
        return []
    own = None if ids is None else places(exemplars.ids, ids)
    at, scores = exemplars.search(queries, min(asked.k, len(exemplars.ids)), own)
    sizes = None
    if asked.balanced:
        sizes = np.repeat(exemplars.sizes[None], len(queries), axis=0)
        if own is not None:
            there = np.flatnonzero(own >= 0)
            sizes[there, exemplars.codes[own[there]]] -= 1
    judged = judge(exemplars, at, scores, asked.temperature, sizes, trust)
    evidence = _evidence(store, exemplars, at, scores, judged)
    classes = exemplars.classes
    return [
        Prediction(
            uri=uris[row],
            image_id=None if ids is None else int(ids[row]),
            label=classes[judged.best[row]],
            confidence=float(judged.confidence[row]),
            abstained=bool(judged.reasons[row]),
            reason=judged.reasons[row],
            labels=judged.labels(classes, row),
            neighbors=evidence[row],
        )
        for row in range(len(queries))
    ]


def _evidence(
    store: Store,
    exemplars: Exemplars,
    at: Positions,
    scores: NDArray[np.float32],
    judged: Judged,
) -> list[tuple[Evidence, ...]]:
    wanted = np.unique(at[at >= 0])
    records = dict(zip(wanted.tolist(), store.records(exemplars.ids[wanted]), strict=True))
    found = []
    for row in range(len(at)):
        near = zip(
            at[row].tolist(), scores[row].tolist(), judged.weights[row].tolist(), strict=True
        )
        found.append(
            tuple(
                Evidence(records[p], exemplars.classes[exemplars.codes[p]], score, weight)
                for p, score, weight in near
                if p >= 0
            )
        )
    return found


def wrapped(
    told: list[Prediction], exemplars: Exemplars, asked: Asked, trust: Trust | None
) -> Predictions:
    """All predictions with what they stand on."""
    k = min(asked.k, len(exemplars.ids))
    return Predictions(told, space=asked.space, k=k, exemplars=exemplars, trust=trust)
