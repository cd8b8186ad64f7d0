"""The vectors of a collection as searches see them: their neighbours and their indexes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from retrieval.encoders import TextEncoder
from retrieval.errors import QueryError, VectorIndexError
from retrieval.query.background import background
from retrieval.query.encoding import Encoding
from retrieval.query.indexing import Indexes
from retrieval.query.measure import measure
from retrieval.query.searcher import Searcher
from retrieval.query.space_vectors import SpaceVectors
from retrieval.query.spaces import choose_space
from retrieval.query.view import View
from retrieval.store import Store
from retrieval.types import Embeddings, Neighbors, Space
from retrieval.vectors import choose
from retrieval.vectors.tune import Measurement

_MOST_NEIGHBORS = 1 << 28  # of all queries of one call


class Indexed(Encoding):
    """What a collection knows of its vectors."""

    def __init__(self, store: Store) -> None:
        """Stand on an open ``store``."""
        super().__init__(store)
        self._searcher = Searcher(store, self._lock)

    @property
    def uri(self) -> str:
        """Path or URI."""
        return self.store.uri

    def neighbors(
        self,
        queries: Embeddings,
        space: str,
        *,
        k: int,
        where: str | None = None,
        index: str | None = None,
    ) -> Neighbors:
        """The nearest images to unit vectors ``[q, dim]`` of ``space``, with exact scores.

        Without an index they are the nearest for sure; an index may miss some, as often as
        :meth:`status` says that it was measured to.

        Returns:
            Neighbours ``[q, k]``; see :class:`retrieval.types.Neighbors`.

        Raises:
            QueryError: if the shape does not fit the space, k < 1, or the answer were too large.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            VectorIndexError: if ``index`` is no kind, or the space has none of it.
        """
        if k < 1:
            raise QueryError(f"k is at least 1, not {k}")
        if len(queries) * k > _MOST_NEIGHBORS:
            raise QueryError(f"{len(queries)} × {k} neighbours are too many for memory")
        found = self._searcher.neighbors(queries, space, k, where, index)[0]
        missing = ((0, 0), (0, k - found.ids.shape[1]))
        return Neighbors(
            np.pad(found.ids, missing, constant_values=-1),
            np.pad(found.scores, missing, constant_values=-np.inf),
        )

    def vectors(self, space: str) -> SpaceVectors:
        """All vectors of a space as they are now: range queries, pairs, the graph of neighbours.

        Raises:
            UnknownSpace: if there is no such space.
            VectorIndexError: if they are too many for memory and there is no index to map them.
        """
        with self._lock:
            return SpaceVectors(self._view(space))

    def build_index(
        self,
        space: str,
        kind: str = "auto",
        *,
        target: float = choose.TARGET,
        tell: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Make an index of a space anew; searches go on meanwhile and take it when it is there.

        Args:
            space: name of the space.
            kind: kind of index; ``auto`` takes the first that reaches ``target`` of those that
                suit the number of vectors.
            target: ann_recall_at_10 that the index is to reach, as measured on the space's own
                vectors.
            tell: called with a line about each step.

        Returns:
            What was built and measured: ``kind``, ``rows``, ``measured``, ….

        Raises:
            VectorIndexError: if there is no such kind, it cannot be used here, or there is no room.
        """
        return Indexes(self.store.again(), self._texts).build(space, kind, target=target, tell=tell)

    def indexes(self, space: str) -> list[dict[str, Any]]:
        """What each index of a space says of itself: kind, rows, version, what was measured.

        Newest first. ``behind`` is the number of rows that are new or changed since, which a search
        scans beside it, or that are gone. One that is damaged, or of a kind that cannot be used
        here, is left out.
        """
        found = []
        with self._lock:
            self.store.refresh()
            for facts in Indexes(self.store).facts(space):
                with suppress(VectorIndexError):
                    view = self._searcher.views.at_version(space, facts["kind"])
                    gone = 0 if view is None or view.dead is None else int(view.dead.sum())
                    behind = 0 if view is None else len(view.fresh[0]) + gone
                    found.append({**facts, "behind": behind})
        return found

    def measure_index(self, space: str, kind: str | None = None) -> Measurement:
        """How good and fast searches of a space are now, against comparing all vectors.

        Args:
            space: name of the space.
            kind: kind of the index that answers; by default the best there is.

        Raises:
            UnknownSpace: if there is no such space.
            VectorIndexError: if there is no index of that kind, or none at all where the vectors
                do not fit into memory.
        """
        with self._lock:
            view, texts = self._view(space, kind), self._texts(space)
        return measure(view, texts)

    def live_recall(self) -> tuple[float | None, int]:
        """Share of the true neighbours that real searches found, and how many were checked.

        One of a thousand searches that an index answered without a filter is answered again by
        comparing all vectors, in the background. None where none was checked yet.
        """
        return self._searcher.live_recall.result()

    def update_indexes(self, *, tell: Callable[[str], None] | None = None) -> bool:
        """Take new rows into the indexes where that is due, and index spaces that became large.

        Answers are right without it; it keeps them quick. True if anything was written.
        """
        indexes = Indexes(self.store.again(), self._texts)
        return any([indexes.update(space, tell=tell) for space in self.spaces])

    def _space(self, name: str | None) -> Space:
        """The space of that name, by default the first visual one, as the collection is now."""
        with self._lock:
            self.store.refresh()
            return choose_space(self.spaces, (), name)

    def _view(self, space: str, kind: str | None = None) -> View:
        self.store.refresh()
        self.store.space(space)
        view = self._searcher.views.at_version(space, kind)
        if view is None:
            raise VectorIndexError(
                f"the vectors of {space!r} do not fit into memory; an index maps them: "
                f"retrieval index -c {self.uri} --index auto"
            )
        return view

    def _texts(self, space: str) -> Embeddings | None:
        """Vectors of varied texts, where the space's encoder is at hand and reads texts."""
        encoder = self._encoders.get(space)
        return background(encoder).scenes if isinstance(encoder, TextEncoder) else None
