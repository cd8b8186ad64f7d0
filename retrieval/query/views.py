"""The newest view of every space, kept up to date by whoever asks first."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from retrieval import folders
from retrieval.errors import DamagedIndex, VectorIndexError
from retrieval.query.indexing import Indexes, fold_due
from retrieval.query.view import View, first_view, moved
from retrieval.store import Store
from retrieval.vectors import index_files
from retrieval.vectors.index_files import OpenIndex, discard
from retrieval.vectors.kinds import backend

_log = logging.getLogger(__name__)

_MEMORY_BYTES = 2 << 30
"""Vectors without an index are kept in memory up to here, and read from the table beyond."""
_TAIL_ROWS = 20_000
"""So many rows beside an index, and it is brought up to date in the background."""

EXACT = "exact"
"""The kind that needs no index, though one keeps many vectors at hand."""


class Views:
    """Not safe by itself: the collection calls it under its lock."""

    def __init__(self, store: Store) -> None:
        """Of the collection that ``store`` holds."""
        self._store = store
        self._indexes = Indexes(store)
        self._views: dict[tuple[str, str | None], tuple[View, int]] = {}
        self._distrusted: set[Path] = set()
        self._building: threading.Thread | None = None
        self._tried: dict[str, int] = {}

    def at_version(self, space: str, kind: str | None = None) -> View | None:
        """The view of a space that is true for the store's version now.

        Args:
            space: name of the space.
            kind: kind of the index it stands on; None for the best there is.

        Returns:
            None where there is no index and the vectors are too many to be kept in memory.

        Raises:
            VectorIndexError: if ``kind`` is asked for and there is none of it.
        """
        view, stamp = self._views.get((space, kind), (None, -1))
        if view is not None and view.version == self._store.version and stamp == self._stamp(space):
            return view
        view, stamp = self._renewed(space, kind, view, stamp)
        if view is None:
            self._views.pop((space, kind), None)
            return None
        self._views[space, kind] = (view, stamp)
        if view.base is not None and len(view.fresh[0]) > _TAIL_ROWS:
            self._update_behind(space, len(view.base.ids), len(view.fresh[0]))
        return view

    def distrust(self, view: View, error: VectorIndexError) -> None:
        """Never use the index of ``view`` again: it failed with ``error``."""
        if view.base is not None:
            self._distrust(view.base, error)
        self._views.clear()

    def forget(self) -> None:
        """Let go of everything that is in memory."""
        self._views.clear()

    def _renewed(
        self, space: str, kind: str | None, view: View | None, stamp: int
    ) -> tuple[View | None, int]:
        now = self._stamp(space)
        base = None if view is None else view.base
        if view is None or stamp != now:
            base = self._indexes.newest(space, kind, opened=base, without=self._distrusted)
        if kind is not None and kind != EXACT and base is None:
            raise VectorIndexError(self._why_not(space, kind))
        if base is None:
            dim = self._store.space(space).dim
            if 4 * dim * self._store.count() > _MEMORY_BYTES:
                return None, now
        try:
            if view is not None and (view.base and view.base.folder) == (base and base.folder):
                return moved(view, self._store, space), now
            return first_view(self._store, space, base), now
        except VectorIndexError as error:
            if base is None:
                raise
            self._distrust(base, error)
            return self._renewed(space, kind, None, -1)

    def _distrust(self, base: OpenIndex, error: VectorIndexError) -> None:
        _log.warning("an index of %s is not used any more: %s", self._store.uri, error)
        self._distrusted.add(base.folder)
        if isinstance(error, DamagedIndex):
            discard(base.folder)

    def _why_not(self, space: str, kind: str) -> str:
        """Why an index that was asked for does not answer."""
        if kind not in index_files.kinds(self._indexes.folder(space)):
            return f"space {space!r} has no index of kind {kind!r}: build it first"
        missing = backend(kind).missing()
        return f"the index of kind {kind!r} of space {space!r} cannot be used here: " + (
            missing or "see the log, and build it again if that does not help"
        )

    def _stamp(self, space: str) -> int:
        """Changes when an index of the space appears or goes."""
        return folders.changed_at(self._indexes.folder(space))

    def _update_behind(self, space: str, rows: int, fresh: int) -> None:
        busy = self._building is not None and self._building.is_alive()
        if busy or not fold_due(rows, fresh) or self._tried.get(space) == self._store.version:
            return
        self._tried[space] = self._store.version  # where nothing can be written, once is enough

        def update() -> None:
            try:
                Indexes(self._store.again()).update(space)
            except Exception as error:  # nobody waits for it, and searches go on
                _log.warning("the index of %s stays as it is: %s", space, error)

        self._building = threading.Thread(target=update, daemon=True, name="index-update")
        self._building.start()
