"""How well exemplars classify each other: every one by all others, from one self-join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError
from retrieval.query.classify.exemplars import Exemplars, Label
from retrieval.query.classify.intervals import accuracies
from retrieval.query.classify.trust import FEWEST, Trust, fit
from retrieval.query.classify.votes import (
    Codes,
    Floats,
    check_temperature,
    votes,
)
from retrieval.query.shares import Share
from retrieval.vectors.graph import knn_graph
from retrieval.vectors.tiles import Tell

KS = (10, 20, 100, 200)
TEMPERATURES = (0.01, 0.03, 0.07, 0.2, 1.0)
SAMPLE = 2000
"""Exemplars that confidence is fitted to, at most."""

_CELLS = 1 << 21  # of votes that are held at a time


@dataclass(frozen=True, slots=True)
class Near:
    """Exemplars that are classified by the others.

    Attributes:
        which: int64 ``[m]``: their positions among the exemplars.
        codes: int64 ``[m, k]``: classes of the k nearest others; -1 where there are fewer.
        scores: float32 ``[m, k]``; -inf where there are fewer.
    """

    which: NDArray[np.int64]
    codes: Codes
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How well one class is told.

    Attributes:
        label: of the class.
        support: exemplars that it has.
        precision: share of those called so that are; None if none is called so.
        recall: share of it that is called so.
    """

    label: Label
    support: int
    precision: float | None
    recall: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep: k neighbours, temperature, and the accuracy with them."""

    k: int
    temperature: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """How well exemplars classify each other.

    Attributes:
        labels: the column.
        space: whose vectors were compared.
        version: of the collection.
        k: neighbours that voted: as asked, or all others where these are fewer.
        temperature: of the votes.
        balanced: whether votes were divided by the number of exemplars of their class.
        exemplars: how many were classified.
        unlabelled: images that took no part since they have no label.
        no_vector: labelled images that took no part since they have no vector.
        alone: exemplars whose class has no other: nothing can tell them, and they count as wrong.
        accuracy: share that is right.
        balanced_accuracy: mean of the classes' recalls.
        twins: exemplars whose very bytes are there more than once, so that they vouch for each
            other.
        accuracy_without_twins: accuracy of all others; None if there are none.
        classes: the figures of each.
        confusion: int64 ``[classes, classes]``: true class down, told class across.
        sweep: accuracies of other k and temperatures.
        best: the best of the sweep; being picked, its accuracy is a little too good.
        trust: how confidence was calibrated; None if too few exemplars have one of their class.
    """

    labels: str
    space: str
    version: int
    k: int
    temperature: float
    balanced: bool
    exemplars: int
    unlabelled: int
    no_vector: int
    alone: int
    accuracy: Share
    balanced_accuracy: Share
    twins: int
    accuracy_without_twins: Share | None
    classes: tuple[ClassFigures, ...]
    confusion: NDArray[np.int64]
    sweep: tuple[Setting, ...]
    best: Setting
    trust: Trust | None

    def confused(self, most: int = 10) -> list[tuple[Label, Label, int]]:
        """True label, told label and how often: the most frequent mistakes first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        names = [each.label for each in self.classes]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(names[a], names[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b]]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"confusion": self.confusion.tolist()}


def near(exemplars: Exemplars, k: int, tell: Tell | None = None) -> Near:
    """The k nearest others of every exemplar, from one comparison of all with all."""
    at, scores = knn_graph(exemplars, k, tell=tell)
    return Near(np.arange(len(at)), exemplars.codes_of(at), scores)


def near_of_sample(exemplars: Exemplars, k: int, seed: int) -> Near:
    """The same of at most 2,000 exemplars, drawn by ``seed``: enough to fit confidence to."""
    which = _sample(len(exemplars.ids), seed)
    at, scores = exemplars.search(exemplars.take(which), k, which)
    return Near(which, exemplars.codes_of(at), scores)


def cast(
    exemplars: Exemplars, found: Near, k: int, temperature: float, balanced: bool
) -> Iterator[tuple[slice, Floats]]:
    """The votes for exemplars by the others, some of them at a time.

    One that is left out does not count for the size of its class either.

    Yields:
        Which of ``found``, and float64 ``[≤ m, classes]``.
    """
    classes, sizes = len(exemplars.classes), exemplars.sizes
    for at in range(0, len(found.which), step := max(1, _CELLS // classes)):
        some, each = slice(at, at + step), None
        if balanced:
            own = exemplars.codes[found.which[some]]
            each = sizes - (np.arange(classes) == own[:, None])
        yield (
            some,
            votes(found.scores[some, :k], found.codes[some, :k], classes, temperature, each),
        )


def fit_trust(
    exemplars: Exemplars,
    found: Near,
    k: int,
    temperature: float,
    balanced: bool,
    coverage: float,
    min_accuracy: float | None,
) -> Trust | None:
    """Fit confidence to exemplars with another of their class; None if these are too few."""
    codes = exemplars.codes[found.which]
    kept = exemplars.sizes[codes] > 1
    if np.count_nonzero(kept) < FEWEST:
        return None
    every = [part for _, part in cast(exemplars, found, k, temperature, balanced)]
    told = np.concatenate(every)[kept]
    nearest, used = found.scores[kept, 0], min(k, len(exemplars.ids) - 1)
    return fit(told, nearest, codes[kept], used, coverage, min_accuracy)


def evaluate(
    exemplars: Exemplars,
    contents: NDArray[np.int64],
    *,
    labels: str,
    space: str,
    k: int,
    temperature: float,
    balanced: bool,
    coverage: float,
    ks: Sequence[int],
    temperatures: Sequence[float],
    seed: int,
    tell: Tell | None,
) -> LeaveOneOut:
    """Classify every exemplar by the others, and count.

    Args:
        exemplars: at least two.
        contents: int64 ``[n]``: equal for exemplars of the same bytes.
        labels: the column.
        space: whose vectors they are.
        k: neighbours that vote.
        temperature: of the votes.
        balanced: whether votes are divided by the size of their class.
        coverage: of the prediction sets.
        ks: tried in the sweep; those beyond all others count once.
        temperatures: tried in the sweep.
        seed: of the bootstrap, and of the sample that confidence is fitted to.
        tell: called with what is done of the comparison, and all there is to do.

    Raises:
        QueryError: if a k or a temperature makes no sense.
    """
    _check(ks, temperatures)
    others = len(exemplars.ids) - 1
    tried = sorted({min(each, others) for each in ks})
    used = min(k, others)
    found = near(exemplars, max(*tried, used), tell)
    confusion, right = _counted(exemplars, found, used, temperature, balanced)
    accuracy, balanced_accuracy = accuracies(np.diag(confusion), exemplars.sizes, seed)
    sweep = tuple(
        Setting(each, warm, float(_counted(exemplars, found, each, warm, balanced)[1].mean()))
        for each in tried
        for warm in temperatures
    )
    single, some = _single(contents), _sample(others + 1, seed)
    sample = Near(some, found.codes[some], found.scores[some])
    return LeaveOneOut(
        labels=labels,
        space=space,
        version=exemplars.version,
        k=used,
        temperature=temperature,
        balanced=balanced,
        exemplars=others + 1,
        unlabelled=exemplars.unlabelled,
        no_vector=exemplars.no_vector,
        alone=int(np.count_nonzero(exemplars.sizes == 1)),
        accuracy=accuracy,
        balanced_accuracy=balanced_accuracy,
        twins=int(np.count_nonzero(~single)),
        accuracy_without_twins=_among(exemplars.codes, right, single, seed),
        classes=_figures(exemplars.classes, confusion),
        confusion=confusion,
        sweep=sweep,
        best=max(sweep, key=lambda each: each.accuracy),
        trust=fit_trust(exemplars, sample, used, temperature, balanced, coverage, None),
    )


def _sample(n: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most so many as confidence is fitted to, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLE])


def _single(contents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which contents are there only once."""
    _, which, counts = np.unique(contents, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = counts[which] == 1
    return found


def _check(ks: Sequence[int], temperatures: Sequence[float]) -> None:
    if not ks or not temperatures or min(ks) < 1:
        raise QueryError("a sweep needs some k of at least 1, and some temperatures")
    for temperature in temperatures:
        check_temperature(temperature)


def _counted(
    exemplars: Exemplars, found: Near, k: int, temperature: float, balanced: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Confusion matrix, and which exemplars are right."""
    classes, codes = len(exemplars.classes), exemplars.codes
    told = np.empty_like(codes)
    for some, part in cast(exemplars, found, k, temperature, balanced):
        told[some] = part.argmax(axis=1)
    cells = np.bincount(codes * classes + told, minlength=classes**2)
    return cells.reshape(classes, classes), told == codes


def _among(
    codes: Codes, right: NDArray[np.bool_], kept: NDArray[np.bool_], seed: int
) -> Share | None:
    if not kept.any():
        return None
    classes = int(codes.max()) + 1
    hits = np.bincount(codes[kept & right], minlength=classes)
    return accuracies(hits, np.bincount(codes[kept], minlength=classes), seed)[0]


def _figures(classes: Sequence[Label], confusion: NDArray[np.int64]) -> tuple[ClassFigures, ...]:
    support, called = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    hits = np.diag(confusion).tolist()
    return tuple(
        ClassFigures(label, there, hit / told if told else None, hit / there)
        for label, there, told, hit in zip(classes, support, called, hits, strict=True)
    )
