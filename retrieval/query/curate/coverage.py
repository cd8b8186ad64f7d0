"""Picks that cover the rest: every image has one that is like it.

Facility location: the sum over all images of the best cosine to a pick (0 where that is below 0)
grows as much as it can with each pick. Greedy picks reach 1 - 1/e of the best sum there is
(Nemhauser, Wolsey and Fisher 1978; half of it with groups); a gain is only computed again when it
could be the largest (M. Minoux, "Accelerated greedy algorithms", 1978).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.query.curate.candidates import Candidates, Open
from retrieval.types import Embeddings
from retrieval.vectors.tiles import Tell

_ROWS, _COLUMNS = 4096, 512  # cosines at a time: as many as caches hold
_DIGITS = 4
_AGAIN = 256  # gains that are computed again together


def coverage(candidates: Candidates, n: int, tell: Tell | None) -> NDArray[np.int64]:
    """Positions of ``n`` picks, in their order; equal gains go to the lowest id.

    The first pick compares every image with every other; the others compare few.

    Args:
        candidates: to pick from and to cover.
        n: number of picks.
        tell: called with finished work and all of it: images and, after them, picks.
    """
    rows, still = candidates.rows, Open(candidates)
    count = len(rows)
    covered = np.zeros(count, dtype=np.float32)
    gains = np.empty(count)
    for start in range(0, count, _COLUMNS):
        stop = min(start + _COLUMNS, count)
        gains[start:stop] = _gains(rows, np.arange(start, stop), covered)
        if tell is not None:
            tell(stop, count + n)
    current = np.ones(count, dtype=bool)  # gains that are those of this moment, not older
    picks = np.empty(n, dtype=np.int64)
    for number in range(n):
        at = _best(rows, gains, current, still.mask, covered)
        picks[number] = at
        still.take(at)
        np.maximum(covered, rows @ rows[at], out=covered)
        current[:] = False
        if tell is not None:
            tell(count + number + 1, count + n)
    return picks


def _best(
    rows: Embeddings,
    gains: NDArray[np.float64],
    current: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    covered: NDArray[np.float32],
) -> int:
    """The candidate of the largest gain. Gains only shrink, so that an old one is a bound."""
    while True:
        bounds = np.where(allowed, gains, -np.inf)
        best = int(np.argmax(bounds))
        if current[best]:
            return best
        bounds[current] = -np.inf
        some = min(_AGAIN, len(bounds))
        at = np.argpartition(-bounds, some - 1)[:some]
        at = np.union1d(at[np.isfinite(bounds[at])], [best])
        gains[at] = _gains(rows, at, covered)
        current[at] = True


def _gains(
    rows: Embeddings, at: NDArray[np.int64], covered: NDArray[np.float32]
) -> NDArray[np.float64]:
    """float64 ``[len(at)]``: by how much each candidate would raise the sum."""
    wanted = rows[at].T
    total = np.full(len(at), -covered.sum(dtype=np.float64))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        cosines = rows[part] @ wanted
        np.maximum(cosines, covered[part, None], out=cosines)
        total += cosines.sum(axis=0, dtype=np.float64)
    # Two images that cover each other alone gain the same: the last digits must not decide.
    found: NDArray[np.float64] = np.round(total, _DIGITS)
    return found
