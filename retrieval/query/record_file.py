"""What hits show of every image, in one memory-mapped file, so that ten records cost no engine.

A file is a folder of ``records.arrow`` (the columns of all records, in batches), ``sums.bin``
(where each batch ends and its CRC-32), ``ids.bin`` (all image ids, sorted, then the row of each)
and ``records.json``. It is true for one version of the table and never changes; nothing of it is
used before its checksum was seen to fit.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval import folders
from retrieval.store import Store, records
from retrieval.types import ImageRecord
from retrieval.vectors import index_files
from retrieval.vectors.sorted_ids import places

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = "records.json"
_RECORDS, _SUMS, _IDS = "records.arrow", "sums.bin", "ids.bin"
_BATCH_ROWS = 2_048
_FEWEST = 10_000  # images; the engine reads ten records of fewer about as quickly
_CHANGED_SHARE = 0.02  # of rows that the engine has to read before the file is written anew
_DAMAGE = (FileNotFoundError, ValueError, TypeError, KeyError)
"""What says that files are not as they were written; any other error may pass."""
_log = logging.getLogger(__name__)


class Damaged(ValueError):
    """The file is not as it was written."""


class RecordFile:
    """An open file.

    Attributes:
        folder: where it is.
        version: of the table of images that it holds.
        ids: sorted int64 ``[n]``: all images of the version.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Map a file; its first batch and what is beside the batches are checked now.

        Args:
            folder: that :func:`renew` wrote.
            facts: what its note says.

        Raises:
            OSError: if something is missing.
            Damaged: if something is damaged.
        """
        import pyarrow as pa

        self.folder, self.version = folder, int(facts["version"])
        for name, known in facts["files"].items():
            whole = (folder / name).stat().st_size == known["bytes"]
            if whole and name != _RECORDS:
                whole = folders.digest(folder / name) == known["blake2b"]
            if not whole:
                raise Damaged(f"{folder / name} is damaged")
        self.ids, self._rows = np.asarray(np.memmap(folder / _IDS, "<i8", "r")).reshape(2, -1)
        sums = np.fromfile(folder / _SUMS, "<i8").reshape(2, -1)
        self._ends, self._sums = [0, *sums[0].tolist()], sums[1].tolist()
        with pa.memory_map(str(folder / _RECORDS)) as file:
            self._bytes = file.read_buffer()
        self._check(len(self._sums) - 1)
        self._reader = pa.ipc.open_file(self._bytes)
        self._added = records.user_columns(self._reader.schema)
        self._batches: dict[int, list[pa.Array]] = {}
        self._batch(0)

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each of ``ids`` is among :attr:`ids`; -1 where it is not."""
        return places(self.ids, ids)

    def records(self, places: NDArray[np.int64]) -> list[ImageRecord]:
        """The records at some places of :attr:`ids`.

        Raises:
            Damaged: if what is read was damaged.
        """
        found = []
        for row in self._rows[places].tolist():
            number, at = divmod(row, _BATCH_ROWS)
            batch = self._batches.get(number) or self._batch(number)
            found.append(records.record([column[at].as_py() for column in batch], self._added))
        return found

    def _batch(self, number: int) -> list[pa.Array]:
        self._check(number)
        batch: list[pa.Array] = self._reader.get_batch(number).columns
        self._batches[number] = batch
        return batch

    def _check(self, number: int) -> None:
        piece = memoryview(self._bytes)[self._ends[number] : self._ends[number + 1]]
        if zlib.crc32(piece) != self._sums[number]:
            raise Damaged(f"{self.folder / _RECORDS} is damaged")


def newest(parent: Path, store: Store, opened: RecordFile | None = None) -> RecordFile | None:
    """The file for the store's version; None if there is none to be trusted.

    One that is damaged is thrown away, with a warning.

    Args:
        parent: where the files are.
        store: of the collection whose records they are.
        opened: is not opened again if it is the newest.
    """
    for folder in _usable(parent, store):
        if opened is not None and opened.folder == folder:
            return opened
        try:
            return RecordFile(folder, folders.read_note(folder, NOTE))
        except _DAMAGE as error:
            if folder.exists():  # not replaced by another process at this moment
                discard(folder, error)
        except OSError as error:
            _log.warning("the records in %s cannot be used now: %s", folder, error)
    return None


def discard(folder: Path, why: Exception) -> None:
    """Throw a damaged file away, where that is allowed."""
    _log.warning("the records in %s are damaged and will be written again: %s", folder, why)
    index_files.discard(folder)


def renew(parent: Path, store: Store) -> bool:
    """Write a file of the collection's newest version if one is due; whether that was done.

    Args:
        parent: where the files are.
        store: of the collection; it is refreshed.

    Raises:
        OSError: if it cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with folders.turn(parent):
        store.refresh()  # what was purged while we waited must not come back
        n = store.count()
        if n < max(1, _FEWEST):
            return False
        there = newest(parent, store)
        if there and len(store.changed(there.version)) <= _CHANGED_SHARE * len(there.ids):
            return False
        folder = parent / f"{store.version:012d}-{token_hex(4)}"
        folders.write(folder, NOTE, lambda inside: _written(inside, store), by_size=[_RECORDS])
        index_files.sweep(parent, [folder])
    return True


def _usable(parent: Path, store: Store) -> Iterator[Path]:
    """Folders of the store's collection, not newer than it and of its columns; newest first."""
    try:
        there = sorted((p for p in parent.iterdir() if not p.name.startswith(".")), reverse=True)
    except OSError:
        return
    if there:
        wanted = _owner(store)
        for folder in there:
            try:
                facts = folders.read_note(folder, NOTE)
                if facts["owner"] == wanted and facts["version"] <= store.version:
                    yield folder
            except _DAMAGE as error:
                if folder.exists():
                    discard(folder, error)
            except OSError as error:
                _log.warning("the records in %s cannot be used now: %s", folder, error)


def _owner(store: Store) -> list[Any]:
    """Whose a file is: the collection, and the columns it had; made ones change for all at once."""
    stamp = store.made.stamp()
    return [
        store.collection_id,
        stamp,
        *([field.name, str(field.type)] for field in store.columns()),
    ]


def _written(inside: Path, store: Store) -> dict[str, Any]:
    import pyarrow as pa

    ids, ends, writer = [], [], None
    with pa.OSFile(str(inside / _RECORDS), "wb") as sink:
        for batch in _even(store.all_records(block_rows=_BATCH_ROWS)):
            writer = writer or pa.ipc.new_file(sink, batch.schema)
            writer.write_batch(batch)
            ids.append(batch["image_id"].to_numpy())
            ends.append(sink.tell())
        if writer is not None:
            writer.close()
        ends.append(sink.tell())
    with (inside / _RECORDS).open("rb") as file:
        sums = [zlib.crc32(file.read(end - start)) for start, end in pairwise([0, *ends])]
    np.array([ends, sums], "<i8").tofile(inside / _SUMS)
    known = np.concatenate(ids)
    order = np.argsort(known, kind="stable")
    np.array([known[order], order], "<i8").tofile(inside / _IDS)
    return {"owner": _owner(store), "version": store.version, "rows": len(known)}


def _even(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of ``batches`` in batches of just so many rows; only the last may be smaller."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in map(_plain, batches):
        held.append(batch)
        while (n := sum(map(len, held))) >= _BATCH_ROWS:
            whole = pa.concat_batches(held)
            yield whole.slice(0, _BATCH_ROWS)
            held = [whole.slice(_BATCH_ROWS)] if n > _BATCH_ROWS else []
    if held:
        yield pa.concat_batches(held)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``batch`` with JSON as the text that it is, which is read three times as fast."""
    import pyarrow as pa

    columns = [getattr(column, "storage", column) for column in batch.columns]
    return pa.record_batch(columns, names=batch.schema.names)
