"""Records of images, from a file where it still tells the truth, and from the table elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval import folders
from retrieval.query import record_file
from retrieval.query.indexing import Indexes
from retrieval.query.record_file import Damaged, RecordFile
from retrieval.store import Store
from retrieval.store.rowids import as_ids
from retrieval.types import ImageRecord
from retrieval.vectors.sorted_ids import places

_NOTHING = np.empty(0, dtype=np.int64)


class Records:
    """What :meth:`Store.records` answers, sooner.

    Not safe by itself: the collection calls it under its lock.
    """

    def __init__(self, store: Store) -> None:
        """Of the collection that ``store`` holds."""
        self._store = store
        self._folder = Path()
        self._seen: tuple[int, str, int] | None = (
            None  # versions and folder's time of the last look
        )
        self._file: RecordFile | None = None
        self._version = 0  # up to which the three below are known
        self._stale: NDArray[np.bool_] | None = None  # of the file's ids: changed since, or gone
        self._since = _NOTHING  # sorted ids of rows that are new or changed since the file

    def of(self, ids: ArrayLike) -> list[ImageRecord]:
        """What is known of ``ids``, in the order asked.

        Raises:
            QueryError: naming an unknown id.
        """
        wanted = as_ids(ids)
        file = self._current()
        if file is None or len(wanted) == 0:
            return self._store.records(wanted)
        at = file.places(wanted)
        kept = at >= 0
        if self._stale is not None:
            kept &= ~self._stale[at]
        try:
            if kept.all():
                return file.records(at)
            found = iter(file.records(at[kept]))
        except Damaged as error:
            record_file.discard(file.folder, error)
            self._file = None
            return self._store.records(wanted)
        others = iter(self._store.records(wanted[~kept]))
        return [next(found if inside else others) for inside in kept.tolist()]

    def _current(self) -> RecordFile | None:
        version = self._store.version
        if self._seen is None or self._seen[0] != version:
            self._folder = Indexes(self._store).records
        now = (version, self._store.made.stamp(), folders.changed_at(self._folder))
        if now == self._seen:
            return self._file
        file = record_file.newest(self._folder, self._store, self._file)
        if file is not self._file or version < self._version:
            self._file, self._stale, self._since = file, None, _NOTHING
            self._version = 0 if file is None else file.version
        if file is not None and self._version != version:
            self._move(file, version)
        self._seen = now
        return file

    def _move(self, file: RecordFile, version: int) -> None:
        """Find what the file does not know: what changed up to ``version``, and what went."""
        changed = self._store.changed(self._version)
        stale = np.zeros(len(file.ids), dtype=bool) if self._stale is None else self._stale
        at = file.places(changed)
        stale[at[at >= 0]] = True
        since = np.union1d(self._since, changed)
        if len(stale) - np.count_nonzero(stale) + len(since) != self._store.count():
            there = self._store.ids()  # fewer than could be: some are gone
            stale |= places(there, file.ids) < 0
            since = since[places(there, since) >= 0]
        self._version, self._stale, self._since = version, stale if stale.any() else None, since
