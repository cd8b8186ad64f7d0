"""Farthest-point picks: each is the image least like all that are picked.

The greedy k-center of T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance"
(1985): no image is more than twice as far from its nearest pick as it need be (distances are those
between unit vectors; without groups). It seeks out the odd ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.query.curate.candidates import Candidates, Open
from retrieval.vectors.tiles import Tell

_DIGITS = 5  # of a cosine; the others are the processor's


def farthest(candidates: Candidates, n: int, seed: int, tell: Tell | None) -> NDArray[np.int64]:
    """Positions of ``n`` picks, in their order; the seed decides the first one alone.

    Of those that are equally far the one with the lowest id is taken.
    """
    rows, still = candidates.rows, Open(candidates)
    nearest = np.full(len(rows), -np.inf, dtype=np.float32)
    picks = np.empty(n, dtype=np.int64)
    for number in range(n):
        if number == 0:
            at = int(np.random.default_rng(seed).choice(np.flatnonzero(still.mask)))
        else:
            at = int(np.argmin(np.where(still.mask, np.round(nearest, _DIGITS), np.inf)))
        picks[number] = at
        still.take(at)
        np.maximum(nearest, rows @ rows[at], out=nearest)
        if tell is not None:
            tell(number + 1, n)
    return picks
