"""All pairs of pictures that are alike, in one collection or across two, and what they share.

Vectors say which pairs there are: exactly, unless an index may. Pictures say how much two have in
common. What was found is kept (see :mod:`~.pair_files`): contents that were compared with each
other at some threshold are not compared again, at that threshold or a higher one, so that a killed
run goes on and a later one compares only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.query.duplicates.approximate import PairRecall, likely_pairs, measured, need_index
from retrieval.query.duplicates.comparer import UNSEEN, Comparer
from retrieval.query.duplicates.contents import Contents, positions_in, with_contents
from retrieval.query.duplicates.kept import UNKNOWN, Kept, TooMany
from retrieval.query.duplicates.pair_files import PairFiles
from retrieval.query.duplicates.refusals import cosine, one_identity
from retrieval.query.duplicates.tiers import TIERS
from retrieval.query.indexed import Indexed
from retrieval.vectors import join
from retrieval.vectors.base import Positions
from retrieval.vectors.tiles import Tell

Wanted = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Of pairs of images ``a`` and ``b``, which are asked for."""

_MEMORY_BYTES = 256 << 20
_SAVE_EVERY_S = 10.0
_SAVE_SHARE = 20.0  # times as long as saving took last, at least, until it is done again
_LOOKS = 512  # pairs that are looked at together
_MOST = 10_000_000
_EXACT = np.int8(TIERS.index("exact"))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of contents, in the order of ``a``, then ``b``.

    Each image stands for all images of the same bytes: it is the one of the lowest id among them.

    Attributes:
        a: int64 ``[m]``: image ids.
        b: int64 ``[m]``: image ids; ``a < b``, unless they are of two collections.
        scores: float32 ``[m]``: exact cosines, at least the threshold.
        tiers: int8 ``[m]``: index into :data:`~.tiers.TIERS`.
        whys: ``[m]``: what a pair has in common, in words.
        recall: measured share of all pairs that these are; None where all were compared.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    scores: NDArray[np.float32]
    tiers: NDArray[np.int8]
    whys: list[str]
    recall: PairRecall | None = None

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.a)


def find_pairs(
    collection: Indexed,
    space: str,
    threshold: float,
    *,
    where: str | None = None,
    wanted: Wanted | None = None,
    approximate: bool = False,
    memory_bytes: int = _MEMORY_BYTES,
    tell: Tell | None = None,
) -> Pairs:
    """Every pair of a collection's pictures whose cosine is at least ``threshold``.

    Images of the same bytes count as one, and those without a vector in the space as none.

    Args:
        collection: whose newest version is compared with itself.
        space: name of the space.
        threshold: cosine from which on a pair counts, in [-1, 1].
        where: only pairs of which both pictures pass this filter; None for all. With one, what is
            kept is made use of, and nothing is added to it.
        wanted: only pairs for which this is true are looked at; of others only those are told that
            were looked at before. None for all.
        approximate: search the space's index instead of comparing all: faster for very many
            images, and some pairs may be missed; ``recall`` says how many. Nothing is kept then,
            either.
        memory_bytes: about how much is held at a time, besides the pairs and the collection's
            vectors where they are not in files.
        tell: called with how much is done, and of how much: the pictures, and then the pairs.

    Raises:
        QueryError: if the threshold makes no sense, or too many pairs reach it.
        UnknownSpace: if there is no such space.
        FilterError: if ``where`` does not parse or fit the columns.
        VectorIndexError: if there is no index and one is needed.
    """
    threshold = cosine(threshold)

    def work(contents: Contents) -> Pairs:
        found = _Found(contents, space, memory_bytes, tell, wanted)
        return (found.by_index if approximate else found.by_all)(threshold, where is None)

    return with_contents([collection], space, where, work)


def pairs_between(
    left: Indexed,
    right: Indexed,
    space: str,
    threshold: float,
    *,
    where: str | None = None,
    memory_bytes: int = _MEMORY_BYTES,
    tell: Tell | None = None,
) -> Pairs:
    """Every pair of a picture of one collection and one of another that are so much alike.

    Images of the same bytes are always a pair, with a score of 1 where one has no vector or theirs
    lie further apart. Nothing is kept.

    Args:
        left: collection of ``a``.
        right: collection of ``b``.
        space: name of a space that both have.
        threshold: cosine from which on a pair counts, in [-1, 1].
        where: filter that both pictures pass; None for all.
        memory_bytes: as for :func:`find_pairs`.
        tell: called with how much is done, and of how much: the left pictures, then the pairs.

    Raises:
        SpaceMismatch: if the vectors are not by the same encoder.
        QueryError: and all others, as :func:`find_pairs` does.
    """
    threshold = cosine(threshold)
    one_identity([left, right], space)

    def work(ours: Contents, theirs: Contents) -> Pairs:
        return _between(ours, theirs, threshold, memory_bytes, tell)

    return with_contents([left, right], space, where, work)


class _Found:
    """The pairs of one collection as they are found, and kept now and then."""

    def __init__(
        self,
        contents: Contents,
        space: str,
        memory_bytes: int,
        tell: Tell | None,
        wanted: Wanted | None,
    ) -> None:
        self._contents, self._space, self._memory = contents, space, memory_bytes
        self._wanted = wanted
        self._tell = tell or (lambda done, total: None)
        self._files = PairFiles(contents.store, space)
        self._due = time.monotonic() + _SAVE_EVERY_S

    def by_all(self, threshold: float, keep: bool) -> Pairs:
        """By comparing all; what is kept is made use of, and renewed if ``keep``."""
        contents, states = self._contents, self._files.load()
        which, keys = contents.joined, contents.keys(contents.joined)
        usable = [state for state in states if state.threshold <= threshold]
        base = max(usable, key=lambda s: len(s.keys), default=Kept.nothing(threshold, keys[:0]))
        at = positions_in(base.keys, keys)
        order = np.argsort(at < 0, kind="stable")  # what was compared comes first
        which, keys = which[order], keys[order]
        known = base.among(keys, positions_in(keys, base.keys))
        if not keep:
            known = known.reaching(threshold)
        start = int(np.count_nonzero(at >= 0))
        try:
            found = self._join(known, which, start, keep)
        except TooMany:
            if known.threshold == threshold:
                raise
            found = self._join(known.reaching(threshold), which, start, keep)
        for state in states:
            if state is not base:
                found.learn(state)
        looked = self._look(found, which, threshold, keep)
        if keep and (looked or not base.whole or not start == len(which) == len(base.keys)):
            self._files.save(replace(found, whole=True))
        return self._named(found, which, threshold)

    def by_index(self, threshold: float, keep: bool) -> Pairs:
        """By searching the index; what is kept tells of some pairs what they have in common."""
        need_index(self._contents, self._space)
        contents, which = self._contents, self._contents.joined
        pairs = likely_pairs(contents, which, threshold, most=_MOST, tell=self._tell)
        recall = measured(contents, which, threshold, pairs, self._memory)
        found = Kept.nothing(threshold, contents.keys(which)).grown([pairs])
        for state in self._files.load():
            found.learn(state)
        self._look(found, which, threshold, False)
        return replace(self._named(found, which, threshold), recall=recall)

    def _join(self, known: Kept, which: Positions, start: int, keep: bool) -> Kept:
        if start == len(which):
            return known
        rows, count = self._contents.chosen(which), len(known.a)
        pieces: list[join.Pairs] = []

        def told(done: int, n: int) -> None:
            if keep:
                self._save(
                    lambda: replace(known.grown(pieces), keys=known.keys[:done], whole=done == n)
                )
            self._tell(done, n)

        for piece in join.pairs_above(
            rows, known.threshold, memory_bytes=self._memory, start=start, tell=told
        ):
            count += len(piece[0])
            if count > _MOST:
                raise TooMany(_MOST, known.threshold)
            if len(piece[0]):
                pieces.append(piece)
        return known.grown(pieces)

    def _look(self, found: Kept, which: Positions, threshold: float, keep: bool) -> bool:
        """See what pairs have in common that nobody looked at; whether any could be seen."""
        ids = self._contents.ids[which]
        new = (found.tiers == UNKNOWN) & (found.scores >= np.float32(threshold))
        todo, n = np.flatnonzero(new), len(which)
        if self._wanted is not None:
            todo = todo[self._wanted(ids[found.a[todo]], ids[found.b[todo]])]
        todo = todo[np.lexsort((found.b[todo], found.a[todo]))]
        comparer = Comparer(self._contents.store, memory_bytes=self._memory)
        for done in _looked(comparer, found, ids, ids, todo):
            if keep:
                self._save(lambda: replace(found, whole=True))
            self._tell(n + done, n + len(todo))
        return bool((found.whys[todo] != UNSEEN).any())

    def _named(self, found: Kept, which: Positions, threshold: float) -> Pairs:
        found, ids = found.reaching(threshold).looked_at(), self._contents.ids[which]
        a, b = ids[found.a], ids[found.b]
        return _sorted(np.minimum(a, b), np.maximum(a, b), found)

    def _save(self, state: Callable[[], Kept]) -> None:
        """Keep what is known by now, unless that was done a moment ago."""
        began = time.monotonic()
        if began < self._due:
            return
        self._files.save(state())
        ended = time.monotonic()
        self._due = ended + max(_SAVE_EVERY_S, _SAVE_SHARE * (ended - began))


def _between(
    ours: Contents, theirs: Contents, threshold: float, memory_bytes: int, tell: Tell | None
) -> Pairs:
    left, right, tell = ours.joined, theirs.joined, tell or (lambda done, total: None)
    pieces, count = [], 0
    for a, b, scores in join.pairs_between(
        ours.chosen(left), theirs.chosen(right), threshold, memory_bytes=memory_bytes, tell=tell
    ):
        count += len(a)
        if count > _MOST:
            raise TooMany(_MOST, threshold)
        pieces.append((left[a], right[b], scores))
    found = Kept.nothing(threshold, ours.hashes).grown(pieces)
    twin = positions_in(theirs.hashes, ours.hashes)
    missing = np.flatnonzero((twin >= 0) & (ours.ids >= 0))
    missing = missing[theirs.ids[twin[missing]] >= 0]
    missing = missing[~np.isin(missing, found.a[twin[found.a] == found.b])]
    ones = np.ones(len(missing), np.float32)
    found = found.grown([(missing, twin[missing], ones)])
    same = twin[found.a] == found.b
    found.tiers[same], found.whys[same] = _EXACT, "same bytes"
    comparer = Comparer(ours.store, theirs.store, memory_bytes=memory_bytes)
    todo = np.flatnonzero(~same)
    todo = todo[np.lexsort((found.b[todo], found.a[todo]))]
    for done in _looked(comparer, found, ours.ids, theirs.ids, todo):
        tell(len(left) + done, len(left) + len(todo))
    return _sorted(ours.ids[found.a], theirs.ids[found.b], found)


def _looked(
    comparer: Comparer,
    found: Kept,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    todo: Positions,
) -> Iterator[int]:
    """Look at some pairs, of the images ``left[a]`` and ``right[b]``; how many are done by then."""
    for at in range(0, len(todo), _LOOKS):
        some = todo[at : at + _LOOKS]
        seen = comparer.compare(left[found.a[some]], right[found.b[some]])
        found.tiers[some] = [TIERS.index(each.tier) for each in seen]
        found.whys[some] = [each.why for each in seen]
        yield at + len(some)


def _sorted(a: NDArray[np.int64], b: NDArray[np.int64], found: Kept) -> Pairs:
    order = np.lexsort((b, a))
    whys = found.whys[order].tolist()
    return Pairs(a[order], b[order], found.scores[order], found.tiers[order], whys)
