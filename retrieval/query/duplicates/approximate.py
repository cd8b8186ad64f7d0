"""Pairs that an index finds, and how many of all pairs they are, measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import VectorIndexError
from retrieval.query.duplicates.contents import Contents
from retrieval.query.duplicates.kept import TooMany
from retrieval.vectors.base import Positions
from retrieval.vectors.join import Pairs, pairs_between
from retrieval.vectors.products import cosines
from retrieval.vectors.sorted_ids import places
from retrieval.vectors.tiles import Tell

_FIRST = 2
"""Neighbours that are asked for at first: the picture itself, and perhaps a pair."""
_QUERIES = 1024
_MOST_PLACES = 1 << 22
"""Neighbours that are held at a time."""
_SAMPLE = 500
_MOST_SAMPLED = 8 * _SAMPLE
_ENOUGH = 200
"""True pairs on which the share is measured; with fewer, more rows are looked at."""
_SLACK = 1e-5
_GATHERED = 65_536
_Z = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class PairRecall:
    """Which share of the pairs was found.

    Attributes:
        share: of the true pairs of a random sample of images, by comparing those with all others.
        low: lower end of its 95 % interval.
        high: upper end.
        checked: how many true pairs the sample had; with none the interval says that nothing is
            known.
    """

    share: float
    low: float
    high: float
    checked: int


def need_index(contents: Contents, space: str) -> None:
    """See that there is an index to search.

    Raises:
        VectorIndexError: naming how to make one.
    """
    if contents.view.base is None:
        raise VectorIndexError(
            f"space {space!r} has no index to find pairs with: "
            f"retrieval index -c {contents.store.uri} --index auto"
        )


def likely_pairs(
    contents: Contents,
    which: Positions,
    threshold: float,
    *,
    most: int,
    tell: Tell | None = None,
) -> Pairs:
    """Pairs above a cosine, as far as searching for each content's own vector finds them.

    Args:
        contents: of a collection with an index.
        which: contents that are asked for, ascending.
        threshold: cosine that a pair reaches.
        most: pairs that there may be.
        tell: called with how many contents were searched for, and how many there are.

    Returns:
        Positions in ``which``, ``a < b``, each pair once, and exact scores.

    Raises:
        TooMany: if more than ``most`` reach the threshold.
    """
    near = _Near(contents, which, threshold, most)
    codes, n = [np.empty(0, np.int64)], len(which)
    for at in range(0, n, _QUERIES):
        done = min(at + _QUERIES, n)
        codes.append(near.pairs(np.arange(at, done)))
        if sum(map(len, codes)) > 2 * most:  # a pair is found from its two ends
            raise TooMany(most, threshold)
        if tell is not None:
            tell(done, n)
    a, b = np.divmod(np.unique(np.concatenate(codes)), max(1, n))
    rows, scores = contents.chosen(which), np.empty(len(a), np.float32)
    for at in range(0, len(a), _GATHERED):
        part = slice(at, at + _GATHERED)
        scores[part] = cosines(rows.take(a[part]), rows.take(b[part]))
    kept = scores >= np.float32(threshold)
    if np.count_nonzero(kept) > most:
        raise TooMany(most, threshold)
    return a[kept], b[kept], scores[kept]


def measured(
    contents: Contents, which: Positions, threshold: float, found: Pairs, memory_bytes: int
) -> PairRecall:
    """Which share of the true pairs was found, on a random sample that is the same each time.

    The interval is of a ratio of means over images, since the pairs of one image are not
    independent (Cochran, Sampling Techniques, §2.11), and at least what the rule of three allows.
    """
    n, rows = len(which), contents.chosen(which)
    codes = found[0] * n + found[1]
    order = np.random.default_rng(0).permutation(n)[:_MOST_SAMPLED]
    true, hit = np.zeros(n), np.zeros(n)
    for some in (order[:_SAMPLE], order[_SAMPLE:]):
        if true.sum() >= _ENOUGH:
            break
        sample = contents.chosen(which[some])
        for own, other, _ in pairs_between(sample, rows, threshold, memory_bytes=memory_bytes):
            one = some[own]
            pairs = (np.minimum(one, other) * n + np.maximum(one, other))[one != other]
            np.add.at(true, one[one != other], 1)
            np.add.at(hit, one[one != other], places(codes, pairs) >= 0)
    checked, images = int(true.sum()), int((true > 0).sum())
    if not checked:
        return PairRecall(1.0, 0.0, 1.0, 0)
    share = float(hit.sum() / checked)
    spread = float(np.sqrt(((hit - share * true) ** 2).sum()) / checked)
    slack = max(_Z * spread, 3.0 / images)
    return PairRecall(share, max(0.0, share - slack), min(1.0, share + slack), checked)


class _Near:
    """Searches for contents among contents, for more neighbours where the last one still counts."""

    def __init__(self, contents: Contents, which: Positions, threshold: float, most: int) -> None:
        self._view, self._rows, self._n = contents.view, contents.chosen(which), len(which)
        ids = contents.vectors.ids[contents.rows[which]]
        self._order = np.argsort(ids)
        self._ids = ids[self._order]
        self._allowed = None if self._n == len(contents.vectors.ids) else self._ids
        self._threshold, self._most = threshold, most
        self._bar = np.float32(threshold - _SLACK)

    def pairs(self, asked: Positions) -> NDArray[np.int64]:
        """Pairs ``a < b`` of the contents at ``asked``, each as ``a * n + b``."""
        k, codes = _FIRST, []
        while len(asked):
            again = []
            for some in np.array_split(asked, -(-len(asked) * k // _MOST_PLACES)):
                near = self._view.search(self._rows.take(some), min(k, self._n), self._allowed)
                reached = near.scores >= self._bar
                mine, place = np.nonzero(reached)
                other, mine = self._order[places(self._ids, near.ids[mine, place])], some[mine]
                real = other != mine
                low, high = np.minimum(mine, other)[real], np.maximum(mine, other)[real]
                codes.append(low * self._n + high)
                again.append(some[reached[:, -1]])
                # From two ends, and in each round those of the rounds before, of half as many.
                if sum(map(len, codes)) > 4 * self._most:
                    raise TooMany(self._most, self._threshold)
            asked = np.concatenate(again) if k < self._n else asked[:0]
            k *= 2
        return np.unique(np.concatenate(codes))
