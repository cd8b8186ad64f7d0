"""Nearest images in a space, through whatever index there is, at the newest version."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import QueryError, VectorIndexError, VersionGone
from retrieval.query.measure import LiveRecall
from retrieval.query.ranking import Ranking, ranked
from retrieval.query.view import View
from retrieval.query.views import Views
from retrieval.store import Store
from retrieval.types import Embeddings, Neighbors
from retrieval.vectors import nearest
from retrieval.vectors.kinds import KINDS

_TRIES = 4
_FILTERS = 16  # of which the ids are remembered


class Searcher:
    """Answers vectors with images. Safe to use from several threads.

    Attributes:
        views: of the spaces; to be used under the collection's lock.
        live_recall: what a sample of the searches found of what was to be found.
    """

    def __init__(self, store: Store, lock: threading.RLock) -> None:
        """Search what ``store`` holds; ``lock`` guards the store's version."""
        self._store = store
        self._lock = lock
        self.views = Views(store)
        self.live_recall = LiveRecall()
        self._allowed: OrderedDict[str, tuple[int, NDArray[np.int64]]] = OrderedDict()

    def neighbors(
        self, queries: Embeddings, space: str, k: int, where: str | None, index: str | None
    ) -> tuple[Neighbors, int]:
        """Neighbours, and the version that they are true for."""
        for _ in range(_TRIES - 1):
            with suppress(VersionGone):  # another process purges
                return self._newest(queries, space, k, where, index)
        return self._newest(queries, space, k, where, index)

    def ranked(
        self,
        query: Embeddings,
        space: str,
        k: int,
        where: str | None,
        index: str | None,
        ranking: Ranking,
    ) -> tuple[Neighbors, int]:
        """Neighbours of one query in the order that ``ranking`` asks for, and their version."""
        if ranking.plain:
            return self.neighbors(query, space, k, where, index)
        with self._lock:  # one version for all steps
            self._store.refresh()
            found = ranked(
                lambda some, n: self._found(some, space, n, where, index)[0],
                lambda other, ids: self._store.vectors_of(other or space, ids),
                query,
                k,
                ranking,
            )
            return found, self._store.version

    def _newest(
        self, queries: Embeddings, space: str, k: int, where: str | None, index: str | None
    ) -> tuple[Neighbors, int]:
        with self._lock:
            self._store.refresh()
        return self._found(queries, space, k, where, index)

    def _found(
        self, queries: Embeddings, space: str, k: int, where: str | None, index: str | None
    ) -> tuple[Neighbors, int]:
        if index is not None and index not in KINDS:
            raise VectorIndexError(f"there is no kind of index {index!r}; {', '.join(KINDS)} are")
        while True:
            with self._lock:
                dim = self._store.space(space).dim
                if queries.ndim != 2 or queries.shape[1] != dim:
                    shape = list(queries.shape)
                    raise QueryError(f"queries have shape {shape}, space {space!r} has dim {dim}")
                allowed = None if where is None else self._ids(where)
                view = self.views.at_version(space, index)
                k = min(k, max(1, self._store.count() if view is None else view.images))
                if view is None:
                    some = nearest(self._store.vectors(space), queries, k, allowed=allowed)
                    return some, self._store.version
            try:
                found = view.search(queries, k, allowed)
                if allowed is None and index is None:
                    self.live_recall.watch(view, queries, found)
                return found, view.version
            except VectorIndexError as error:
                with self._lock:
                    self.views.distrust(view, error)

    def size(self, view: View | None, where: str | None) -> int:
        """How many images of ``view`` a filter leaves to be searched; under the lock."""
        rows = 0 if view is None else view.rows
        return rows if where is None else min(rows, len(self._ids(where)))

    def _ids(self, where: str) -> NDArray[np.int64]:
        """Sorted ids that a filter lets through, remembered while the version is the same."""
        version, ids = self._allowed.get(where, (-1, None))
        if ids is None or version != self._store.version:
            ids = self._store.ids(where)
        self._allowed[where] = (self._store.version, ids)
        self._allowed.move_to_end(where)
        if len(self._allowed) > _FILTERS:
            self._allowed.popitem(last=False)
        return ids
