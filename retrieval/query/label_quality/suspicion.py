"""How suspicious each given label is: neighbours and a linear classifier, both without the image.

What both say of the given label is averaged, and compared with what images of that class usually
get: the self-confidence threshold of confident learning (Northcutt, Jiang and Chuang, "Confident
learning: estimating uncertainty in dataset labels", 2021), the mean over all images that have the
label. So a class that is hard for the encoder is not suspicious as a whole, nor a rare one, which
gets few votes. ``docs/label-quality.md`` says how that was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.query.classify.exemplars import Exemplars
from retrieval.query.classify.votes import Floats, K, votes
from retrieval.query.label_quality.linear import LeftOut
from retrieval.vectors.base import Positions
from retrieval.vectors.graph import knn_graph
from retrieval.vectors.tiles import Tell

FLAGGED_FROM = 0.9
"""Suspicion from which on a label is called likely wrong."""
_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of each label, in the order of the exemplars.

    Attributes:
        values: float64 ``[n]`` in [0, 1]: 1 - p / t with the probability p of the given label and
            its class's mean t, 0 where p is above t. NaN where nothing can be said, as for the only
            image of its class.
        given: float64 ``[n]``: p, the mean of the two below.
        by_neighbors: float64 ``[n]``: what the neighbours give to the given label.
        by_line: float64 ``[n]``: what the linear classifier gives to it.
        suggested: int64 ``[n]``: the likeliest class, or the likeliest other one where the label
            is suspicious.
        likely: float64 ``[n]``: probability of ``suggested``.
        neighbors: int64 ``[n, k]``: positions of the nearest others; -1 where there are fewer.
        scores: float32 ``[n, k]``: their cosines.
    """

    values: Floats
    given: Floats
    by_neighbors: Floats
    by_line: Floats
    suggested: NDArray[np.int64]
    likely: Floats
    neighbors: Positions
    scores: NDArray[np.float32]

    @property
    def ranked(self) -> Positions:
        """Labels that are likely wrong, the most suspicious first."""
        flagged = np.flatnonzero(self.values >= FLAGGED_FROM)
        return flagged[np.lexsort((flagged, self.given[flagged], -self.values[flagged]))]


def suspicion(exemplars: Exemplars, tell: Tell | None = None) -> Suspicion:
    """Judge the label of every exemplar by all others, in one self-join and one linear fit.

    Args:
        exemplars: labelled images of at least two classes; their vectors are read in blocks.
        tell: called with the number of exemplars whose neighbours are found, and n.
    """
    codes, classes = exemplars.codes, len(exemplars.classes)
    n = len(codes)
    at, scores = knn_graph(exemplars, K, tell=tell)
    line = LeftOut(exemplars, codes, classes)
    near, far, best, likely = np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n)
    for start in range(0, n, _BLOCK_ROWS):
        some = slice(start, min(n, start + _BLOCK_ROWS))
        own = np.arange(len(codes[some])), codes[some]
        voted = votes(scores[some], exemplars.codes_of(at[some]), classes)
        drawn = line.probabilities(exemplars.take(np.arange(n)[some]), codes[some])
        near[some], far[some] = voted[own], drawn[own]
        both = (voted + drawn) / 2
        both[own] = np.where(both[own] < _RIVAL, -1.0, both[own])
        best[some] = both.argmax(axis=1)
        likely[some] = both.max(axis=1)
    given = (near + far) / 2
    sizes = np.maximum(exemplars.sizes, 1)
    usual = (np.bincount(codes, weights=given, minlength=classes) / sizes)[codes]
    alone = (exemplars.sizes < 2)[codes]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.clip(1.0 - given / usual, 0.0, 1.0)
    values[alone | ~(usual > 0)] = np.nan
    return Suspicion(values, given, near, far, best, likely, at, scores)


_RIVAL = 1.0 - FLAGGED_FROM  # a flagged label has less: what is suggested then is another
