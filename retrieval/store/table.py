"""One Lance table: a snapshot for reading, atomic commits for writing."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval.errors import CollectionError, VersionGone

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
_ATTEMPTS = 12
_PAUSE_S = 0.02
_RETRIES = 40
_RETRY_TIMEOUT = timedelta(seconds=120)
_LOST = re.compile("onflict|Attempted 0 retries")


class Busy(CollectionError):
    """Other writers kept coming first."""


class Table:
    """A handle that reads one version until :meth:`refresh` or a write of its own.

    ``snapshot`` is never changed in place: a thread that took it keeps reading what it took.
    """

    def __init__(self, snapshot: Any, storage_options: Mapping[str, str] | None) -> None:
        """Wrap an open ``lance.LanceDataset``."""
        self.snapshot = snapshot
        self.storage_options = dict(storage_options) if storage_options else None

    @classmethod
    def open(cls, uri: str, storage_options: Mapping[str, str] | None = None) -> Table | None:
        """The table at ``uri``, or None where there is none.

        Raises:
            CollectionError: if the place cannot be read.
        """
        import lance

        options = dict(storage_options) if storage_options else None
        try:
            return cls(lance.dataset(uri, storage_options=options), options)
        except (OSError, ValueError, RuntimeError) as error:
            if "was not found" in str(error) or "Not found" in str(error):
                return None
            raise CollectionError(f"{uri} cannot be read: {_without_place(error)}") from error

    @classmethod
    def create(
        cls, uri: str, rows: pa.Table, storage_options: Mapping[str, str] | None = None
    ) -> Table | None:
        """Write ``rows`` as a new table at ``uri``; None if another process was faster."""
        import lance

        options = dict(storage_options) if storage_options else None
        try:
            made = lance.write_dataset(
                rows, uri, mode="create", storage_options=options, enable_stable_row_ids=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            if cls.open(uri, options) is not None:
                return None
            raise CollectionError(f"{uri} cannot be written: {_without_place(error)}") from error
        return cls(made, options)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """The snapshot, for reading.

        Raises:
            VersionGone: if it cannot be read and is not the latest any more, as after another
                process's purge.
            CollectionError: if it cannot be read otherwise.
        """
        snapshot = self.snapshot
        try:
            yield snapshot
        except (OSError, ValueError, RuntimeError) as error:
            what = f"version {snapshot.version} of {snapshot.uri} cannot be read"
            if _is_latest(snapshot):
                raise CollectionError(f"{what}: {_without_place(error)}") from error
            raise VersionGone(
                f"{what}, maybe since it was purged: refresh or open the collection again; "
                f"{_without_place(error)}"
            ) from error

    def batches(
        self, columns: Sequence[str], batch_rows: int, where: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the version that is read now, streamed, in no order; no batch is empty.

        Raises:
            VersionGone, CollectionError: if the version cannot be read.
        """
        scanner = self.snapshot.scanner(columns=list(columns), batch_size=batch_rows, filter=where)
        found = scanner.to_batches()
        while True:
            with self.reading():
                batch = next(found, None)
            if batch is None:
                return
            if len(batch):
                yield batch

    @property
    def version(self) -> int:
        """Version that this handle reads."""
        return int(self.snapshot.version)

    def refresh(self) -> bool:
        """See the latest commit; True if it is another than before."""
        try:
            if self.snapshot.latest_version == self.snapshot.version:
                return False
            self.snapshot = self._latest()
        except (OSError, ValueError, RuntimeError) as error:
            what = f"{self.snapshot.uri} cannot be read: {_without_place(error)}"
            raise CollectionError(what) from error
        return True

    def upsert(self, rows: pa.Table, key: str) -> None:
        """Insert ``rows`` or replace those of the same ``key``, in one commit."""
        self.commit(lambda ds: _patient(ds, key).when_not_matched_insert_all().execute(rows))

    def insert(self, rows: pa.Table, key: str) -> int:
        """Insert those ``rows`` whose ``key`` is new, in one commit; how many they were."""

        def run(ds: Any) -> Any:
            builder = ds.merge_insert(key).when_not_matched_insert_all()
            return builder.conflict_retries(_RETRIES).retry_timeout(_RETRY_TIMEOUT).execute(rows)

        return int(self.commit(run)["num_inserted_rows"])

    def update(self, rows: pa.Table, key: str) -> int:
        """Set the given columns of existing rows, in one commit; how many were found."""
        return int(self.commit(lambda ds: _patient(ds, key).execute(rows))["num_updated_rows"])

    def rewrite(
        self, columns: Sequence[str], where: str, most: int, make: Callable[[pa.Table], pa.Table]
    ) -> int:
        """Set columns of up to ``most`` rows to what ``make`` gives, in one commit.

        If another process changes one of the rows meanwhile, they are read and made anew.

        Args:
            columns: what ``make`` gets; the first is the key.
            where: the engine's filter for the rows.
            most: how many rows are taken.
            make: turns rows into new values with their key.

        Returns:
            How many rows there were.
        """

        def run(ds: Any) -> int:
            rows = ds.scanner(columns=list(columns), filter=where, limit=most).to_table()
            if len(rows):
                builder = ds.merge_insert(columns[0]).when_matched_update_all()
                builder.conflict_retries(0).execute(make(rows))
            return len(rows)

        return self.commit(run)

    def delete(self, keys: pa.Table, key: str) -> int:
        """Delete rows by ``key``, in one commit; how many there were."""

        def run(ds: Any) -> Any:
            builder = ds.merge_insert(key).when_matched_delete()
            return builder.conflict_retries(_RETRIES).retry_timeout(_RETRY_TIMEOUT).execute(keys)

        return int(self.commit(run)["num_deleted_rows"])

    def add_columns(self, fields: pa.Schema) -> bool:
        """Add null columns that are not there yet; False if all were."""
        import pyarrow as pa

        def run(ds: Any) -> bool:
            missing = [field for field in fields if field.name not in ds.schema.names]
            if missing:
                ds.add_columns(pa.schema(missing))
            return bool(missing)

        return self.commit(run)

    def commit(self, write: Callable[[Any], T]) -> T:
        """Run ``write`` on the latest version, again if another writer came between.

        Raises:
            CollectionError: if the write fails or loses against other writers too often.
        """
        from lance.commit import CommitConflictError

        conflict: Exception | None = None
        for attempt in range(_ATTEMPTS):
            try:
                latest = self._latest()
                result = write(latest)
            except (CommitConflictError, OSError, ValueError, RuntimeError) as error:
                # Compaction, indexing and merges report a lost race as a plain OSError.
                lost = isinstance(error, CommitConflictError) or _LOST.search(str(error))
                if not lost:
                    what = f"writing to {self.snapshot.uri} failed: {_without_place(error)}"
                    raise CollectionError(what) from error
                conflict = error
                time.sleep(random.uniform(0, min(_PAUSE_S * 2**attempt, 1.0)))
                continue
            self.snapshot = latest
            return result
        raise Busy(
            f"gave up writing to {self.snapshot.uri}: other writers kept coming first; "
            "try again when they are done"
        ) from conflict

    def _latest(self) -> Any:
        import lance

        return lance.dataset(
            self.snapshot.uri,
            storage_options=self.storage_options,
            session=self.snapshot.session(),
        )


def _patient(dataset: Any, key: str) -> Any:
    """A merge by ``key`` that waits out other writers."""
    builder = dataset.merge_insert(key).when_matched_update_all()
    return builder.conflict_retries(_RETRIES).retry_timeout(_RETRY_TIMEOUT)


def _is_latest(snapshot: Any) -> bool:
    try:
        return bool(snapshot.latest_version == snapshot.version)
    except (OSError, ValueError, RuntimeError):
        return True


def _without_place(error: Exception) -> str:
    """What the engine says, without the place in its source code."""
    return re.sub(r",?\s*(at )?[\w./-]+\.rs:\d+(:\d+)?", "", str(error))
