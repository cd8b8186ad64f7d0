"""Calibrated relevance: how much a score says in this collection, and whether anything fits.

A cosine alone says little: words lie lower than pictures, some pictures are near to everything
(hubs), a larger collection has a better best hit by chance alone, and every encoder has a scale of
its own. So a hit's score is measured against a background, as the scores of voices are in speaker
verification (t-norm: Auckenthaler, Carey and Lloyd-Thomas, "Score normalization for
text-independent speaker verification systems", 2000), and the best hits against what a query
without an answer reaches here. ``docs/relevance.md`` says what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.query.chance import (
    BEST,
    TINY,
    Band,
    Floats,
    Tail,
    above_nearly_all,
    fit_tail,
    like_most,
)
from retrieval.types import Embeddings

Verdict: TypeAlias = Literal["good match", "weak match", "no good match"]

SAMPLE = 2000
"""How many of a collection's vectors, drawn at random, are enough."""

FEWEST = 50
"""Collections of fewer images are not judged."""

_PROBES = 512  # pictures of the sample that stand for picture queries
_SAME = 0.9999  # cosine from which a picture is itself or its copy


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What the scores of an answer are worth.

    Attributes:
        relevance: float32 ``[k]`` in [0, 1], in the order of the hits; grows with the score. 0.5
            and 0.75 are as far as the best hit of a query without an answer comes in one of 20
            and one of 100 cases. For a picture: what the nearest other picture of 5 % and of 25 %
            of the collection's own pictures stays below.
        overall: the same for the answer as a whole: the best hit, or the mean of the best five if
            that says more, so that neither one hub nor the lack of a second match decides.
        verdict: ``good match`` from 0.75 on, ``no good match`` below 0.5.
        over_images: float32 ``[k]``, standard deviations of the score above what this query gets
            from random images of the collection.
        over_queries: float32 ``[k]``, standard deviations of the score above what this image gets
            from unrelated queries.
    """

    relevance: NDArray[np.float32]
    overall: float
    verdict: Verdict
    over_images: NDArray[np.float32]
    over_queries: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What scores are worth in one space of one collection, for one kind of query.

    Made by :func:`calibrate_texts` and :func:`calibrate_images`; judges the hits of any query of
    that kind. A composed query is judged as the kind that weighs most in it.
    """

    _sample: Embeddings
    _background: Embeddings
    _centre: float
    _spread: float
    _tail: Tail
    _means: tuple[Band, ...]
    _answers: tuple[Band, ...]

    def judge(
        self,
        query: NDArray[np.float32],
        vectors: Embeddings,
        scores: NDArray[np.float32],
        size: int,
    ) -> Judgement | None:
        """Judge the hits of one query.

        Args:
            query: unit vector ``[dim]``.
            vectors: the hits' vectors ``[k, dim]``, best first or not.
            scores: their cosines to the query ``[k]``, in the same order.
            size: how many images were searched: those of the collection, or those that a filter
                let through. The best of many is better by chance, and that is taken off.

        Returns:
            The judgement, or None where there are no hits.
        """
        if len(scores) == 0:
            return None
        cosines = np.asarray(scores, dtype=np.float64)
        over_queries = _over(cosines, self._background @ vectors.T)
        over_images = _over(cosines, (self._sample @ query)[:, None])
        values = over_queries + (cosines - self._centre) / self._spread
        growth = self._tail.growth(max(size, len(cosines)), len(self._sample))
        places = self._means[0].place(values - growth[0])
        best = np.lexsort((-values, -cosines))[:BEST]
        n = len(best)
        mean = self._means[n - 1].place((values[best] - growth[:n]).mean(keepdims=True))
        answer = self._answers[n - 1].place(np.maximum(mean, places[best[:1]]))
        return Judgement(
            relevance=_relevance(places).astype(np.float32),
            overall=float(_relevance(answer)[0]),
            verdict=_verdict(float(answer[0])),
            over_images=over_images.astype(np.float32),
            over_queries=over_queries.astype(np.float32),
        )


def calibrate_texts(
    sample: Embeddings, background: Embeddings, unanswerable: Embeddings
) -> Calibration | None:
    """Calibrate a language-aligned space for words.

    Args:
        sample: vectors of random images of the collection ``[m, dim]``; of all if they are few.
        background: vectors of varied texts ``[b, dim]``; see
            :mod:`retrieval.query.background`.
        unanswerable: vectors of texts that no picture shows ``[u, dim]``.

    Returns:
        The calibration; None for fewer than ``FEWEST`` images.
    """
    if len(sample) < FEWEST:
        return None
    queries = np.concatenate([background, unanswerable])
    return _calibrate(sample, queries, unanswerable, above_nearly_all)


def calibrate_images(sample: Embeddings) -> Calibration | None:
    """Calibrate a space for pictures: what the collection's own are to one another.

    Args:
        sample: vectors of random images of the collection ``[m, dim]``; of all if they are few.

    Returns:
        The calibration; None for fewer than ``FEWEST`` images.
    """
    if len(sample) < FEWEST:
        return None
    probes = sample[:_PROBES]
    return _calibrate(sample, probes, probes, like_most)


def _calibrate(
    sample: Embeddings, background: Embeddings, null: Embeddings, band: Callable[[Floats], Band]
) -> Calibration:
    others = background @ sample.T
    mean, deviation = _moments(others)
    centre, spread = (float(part[0]) for part in _moments(others.reshape(-1, 1)))
    asked = null @ sample.T
    asked = np.where(asked < _SAME, asked, -1.0)
    values = (asked - mean) / deviation + (asked - centre) / spread
    best = np.argpartition(-asked, BEST, axis=1)[:, :BEST]
    order = np.argsort(-np.take_along_axis(asked, best, axis=1), axis=1)
    best = np.take_along_axis(best, order, axis=1)
    means = np.take_along_axis(values, best, axis=1).cumsum(axis=1) / np.arange(1, BEST + 1)
    bands = [band(column) for column in means.T]
    first = bands[0].place(means[:, 0])
    together = [np.maximum(b.place(m), first) for b, m in zip(bands, means.T, strict=True)]
    answers = tuple(band(places) for places in together)
    return Calibration(sample, background, centre, spread, fit_tail(values), tuple(bands), answers)


def _moments(cosines: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Mean and deviation of every column, without those of a picture to itself."""
    kept = cosines < _SAME
    count = np.maximum(kept.sum(axis=0), 1)
    mean = (cosines * kept).sum(axis=0, dtype=np.float64) / count
    apart = (cosines - mean.astype(np.float32)) * kept
    variance = np.square(apart, out=apart).sum(axis=0, dtype=np.float64) / count
    return mean, np.maximum(np.sqrt(variance), TINY)


def _over(cosines: Floats, others: NDArray[np.float32]) -> Floats:
    mean, deviation = _moments(others)
    return np.asarray((cosines - mean) / deviation)


def _relevance(places: Floats) -> Floats:
    """0.5 at the lower border, 0.75 at the upper one."""
    return np.asarray(1 / (1 + np.exp(-np.log(3) * np.clip(places, -50, 50))))


def _verdict(place: float) -> Verdict:
    if place < 0:
        return "no good match"
    return "weak match" if place < 1 else "good match"
