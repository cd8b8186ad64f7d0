"""What images are, by their neighbours: labels, how sure they are, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from retrieval.query.classify.exemplars import Exemplars, Label
from retrieval.query.classify.trust import UNLIKE_SHARE, Trust
from retrieval.query.classify.votes import Floats, shares, votes
from retrieval.query.duplicates.found import as_frame
from retrieval.types import ImageRecord

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_NAMED = 3  # classes that a reason names


@dataclass(frozen=True, slots=True)
class Evidence:
    """An exemplar that voted.

    Attributes:
        image: what is known of it.
        label: its class.
        score: exact cosine.
        weight: its share of the vote before classes are balanced; those of all neighbours sum to 1.
    """

    image: ImageRecord
    label: Label
    score: float
    weight: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an image is by its neighbours.

    Attributes:
        uri: path or URI of the image, as far as it has one.
        image_id: of a stored image; None for one that is not in the collection.
        label: the best class, even when abstained.
        confidence: its probability: calibrated where that could be fitted, else its votes.
        abstained: whether the label should not be relied on.
        reason: why; empty if it is answered.
        labels: the classes that cannot be ruled out, the best first; None where no set could be
            fitted. See :mod:`retrieval.query.classify.trust` for what they promise.
        neighbors: the exemplars that voted, the nearest first.
    """

    uri: str | None
    image_id: int | None
    label: Label
    confidence: float
    abstained: bool
    reason: str
    labels: tuple[Label, ...] | None
    neighbors: tuple[Evidence, ...]


class Predictions(Sequence[Prediction]):
    """Predictions in the order asked, and what they stand on.

    Attributes:
        space: whose vectors were compared.
        version: of the collection.
        k: neighbours that voted: as asked, or all exemplars where these are fewer.
        exemplars: how many there were.
        unlabelled: images that took no part since they have no label.
        trust: how confidence was calibrated; None if too few exemplars have one of their class:
            then nothing is abstained from.
    """

    def __init__(
        self,
        predictions: Sequence[Prediction],
        *,
        space: str,
        k: int,
        exemplars: Exemplars,
        trust: Trust | None,
    ) -> None:
        """Wrap ``predictions``."""
        self._predictions = tuple(predictions)
        self.space = space
        self.version = exemplars.version
        self.k = k
        self.exemplars = len(exemplars.ids)
        self.unlabelled = exemplars.unlabelled
        self.trust = trust

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        """The prediction at ``index``, or a slice of them."""
        return self._predictions[index]

    def __len__(self) -> int:
        """Number of predictions."""
        return len(self._predictions)

    def __iter__(self) -> Iterator[Prediction]:
        """Predictions in the order asked."""
        return iter(self._predictions)

    def __repr__(self) -> str:
        """Short, for the prompt."""
        answered = sum(not each.abstained for each in self)
        return f"<Predictions n={len(self)} answered={answered} space={self.space}>"

    def to_arrow(self) -> pa.Table:
        """One row a prediction; neighbours by id."""
        import pyarrow as pa

        told = [list(each.labels) if each.labels is not None else None for each in self]
        return pa.table(
            {
                "image_id": pa.array([each.image_id for each in self], pa.int64()),
                "uri": pa.array([each.uri for each in self], pa.string()),
                "label": pa.array([each.label for each in self]),
                "confidence": pa.array([each.confidence for each in self], pa.float64()),
                "abstained": pa.array([each.abstained for each in self], pa.bool_()),
                "reason": pa.array([each.reason for each in self], pa.string()),
                "labels": pa.array(told),
                "neighbors": pa.array(
                    [[near.image.image_id for near in each.neighbors] for each in self],
                    pa.list_(pa.int64()),
                ),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """The table of :meth:`to_arrow` as a pandas frame.

        Raises:
            InstallError: if pandas is not here.
        """
        return as_frame(self.to_arrow())


@dataclass(frozen=True, slots=True)
class Judged:
    """Predictions as numbers.

    Attributes:
        best: int64 ``[q]``: number of the best class.
        confidence: float64 ``[q]``.
        members: bool ``[q, classes]``: the prediction sets; None where there are none.
        order: int64 ``[q, classes]``: classes, the best first.
        reasons: why not to answer, ``[q]``; empty for answers.
        weights: float64 ``[q, k]`` of the neighbours.
    """

    best: NDArray[np.int64]
    confidence: Floats
    members: NDArray[np.bool_] | None
    order: NDArray[np.int64]
    reasons: list[str]
    weights: Floats

    def labels(self, classes: Sequence[Label], at: int) -> tuple[Label, ...] | None:
        """The prediction set of one image, the best class first."""
        if self.members is None:
            return None
        return tuple(classes[c] for c in self.order[at].tolist() if self.members[at, c])


def judge(
    exemplars: Exemplars,
    positions: NDArray[np.int64],
    scores: NDArray[np.float32],
    temperature: float,
    sizes: NDArray[np.int64] | None,
    trust: Trust | None,
) -> Judged:
    """Let neighbours vote, and say whether to believe it.

    One rule: an image that is unlike every exemplar is not answered. Of the others, with a wanted
    accuracy, those are whose confidence reached it on exemplars; without one, those whose
    prediction set has exactly one class.

    Args:
        exemplars: that vote.
        positions: int64 ``[q, k]`` of the neighbours.
        scores: float32 ``[q, k]``.
        temperature: of the votes.
        sizes: ``[classes]`` or ``[q, classes]`` to balance votes by; None for no balance.
        trust: how to calibrate; None for votes as they are, all of which are answered.
    """
    classes = exemplars.classes
    found = votes(scores, exemplars.codes_of(positions), len(classes), temperature, sizes)
    weights = shares(scores, temperature)
    order = np.argsort(-found, axis=1, kind="stable")
    best = order[:, 0]
    if trust is None:
        plain = np.take_along_axis(found, best[:, None], 1)[:, 0]
        return Judged(best, plain, None, order, [""] * len(best), weights)
    used = np.count_nonzero(positions >= 0, axis=1)
    told = trust.calibrated(found, used[:, None])
    confidence, members = told[np.arange(len(best)), best], trust.members(told)
    judged = Judged(best, confidence, members, order, [], weights)
    for at, nearest in enumerate(scores[:, 0].tolist()):
        judged.reasons.append(_reason(judged, trust, classes, at, nearest))
    return judged


def _reason(judged: Judged, trust: Trust, classes: Sequence[Label], at: int, nearest: float) -> str:
    if nearest < trust.unlike_below:
        return (
            f"unlike every exemplar: the nearest scores {nearest:.3f}, and {1 - UNLIKE_SHARE:.0%} "
            f"of the exemplars have another at {trust.unlike_below:.3f} or above"
        )
    if trust.answer_from is not None:
        sure = float(judged.confidence[at])
        if sure >= trust.answer_from:
            return ""
        if np.isinf(trust.answer_from):
            return "unsure: no confidence reached the wanted accuracy among the exemplars"
        return f"unsure: {sure:.2f}, and the wanted accuracy begins at {trust.answer_from:.2f}"
    labels = judged.labels(classes, at) or ()
    if len(labels) == 1:
        return ""
    if not labels:
        return "unsure: no class is likely enough"
    named = ", ".join(str(label) for label in labels[:_NAMED])
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"unsure: it may be {named}{more}"
