"""What an anomaly search answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from retrieval.query.anomaly.limits import Limit
from retrieval.query.anomaly.patches import PatchMap


@dataclass(frozen=True, slots=True)
class AnomalyResult:
    """How odd a picture is.

    Attributes:
        place: its number, from 0, among the pictures that were asked about.
        uri: its path, or ``picture 1`` if it came without one.
        anomaly_score: more is worse: the mean of the highest 1 % of its patches' distances, or
            :attr:`image_score` where there are no patches.
        threshold: scores above it are anomalies; None if there are too few normal images to say.
        is_anomaly: whether it is one; None if there is no threshold.
        image_score: of the whole picture, by its vector.
        patches: where it is odd; None where there are no patches.
    """

    place: int
    uri: str
    anomaly_score: float
    threshold: float | None
    is_anomaly: bool | None
    image_score: float
    patches: PatchMap | None

    @property
    def heatmap(self) -> NDArray[np.float32] | None:
        """Distances on the picture, ``[height, width]``, made anew by each look at it."""
        return None if self.patches is None else self.patches.heatmap()


@dataclass(frozen=True, slots=True)
class Unread:
    """A picture that could not be scored.

    Attributes:
        place: its number, from 0, among the pictures that were asked about.
        uri: its path, or ``picture 1`` if it came without one.
        reason: why.
    """

    place: int
    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class Anomalies(Sequence[AnomalyResult]):
    """The pictures that could be scored, in the order they were given.

    Attributes:
        results: of each picture.
        failures: pictures that could not be read.
        space: whose encoder looked.
        normals: how many images are normal.
        limit: where anomalies begin, and how often a normal image is above that.
        image_limit: the same for ``image_score``.
        note: what to know about the answer; empty where it is as asked.
    """

    results: tuple[AnomalyResult, ...]
    failures: tuple[Unread, ...]
    space: str
    normals: int
    limit: Limit
    image_limit: Limit
    note: str

    def __len__(self) -> int:
        """How many pictures could be scored."""
        return len(self.results)

    @overload
    def __getitem__(self, at: int) -> AnomalyResult: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[AnomalyResult, ...]: ...

    def __getitem__(self, at: int | slice) -> AnomalyResult | tuple[AnomalyResult, ...]:
        """One result, or some."""
        return self.results[at]

    def __iter__(self) -> Iterator[AnomalyResult]:
        """The results in their order."""
        return iter(self.results)
