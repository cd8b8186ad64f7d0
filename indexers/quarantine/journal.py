"""What a quarantine folder remembers: which files were to move, and the rows they had."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexers.quarantine.files import discard, hiding_place
from indexers.quarantine.plan import JOURNAL
from retrieval.errors import PlanError
from retrieval.folders import advice
from retrieval.store import Store
from retrieval.uris import path_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was to move: where it was, and what it was."""

    image_id: int
    uri: str
    content_hash: str

    @property
    def path(self) -> str:
        """Where it was."""
        path = path_of(self.uri)
        assert path is not None, "only local files get an entry"
        return path


class Journal:
    """The memory of one quarantine folder. What it was told is on disk when a call returns.

    Attributes:
        folder: the quarantine.
        facts: ``collection_id`` and ``plan`` (digest of the plan file) of what was applied; empty
            if nothing was yet.
        entries: the files that were to move, by image id.
        done: ids of those that were moved and whose rows were taken out of the collection.
    """

    def __init__(self, folder: Path) -> None:
        """Read what ``folder`` remembers; a line that was cut short never was."""
        self.folder = folder
        self.facts: dict[str, str] = {}
        self.entries: dict[int, Entry] = {}
        self.done: set[int] = set()
        self._path = folder / JOURNAL
        self._whole = 0  # bytes of whole lines
        for line in self._lines():
            if "plan" in line:
                self.facts = line
            elif "done" in line:
                self.done.update(line["done"])
            else:
                entry = Entry(**line)
                self.entries[entry.image_id] = entry
                self.done.discard(entry.image_id)

    def begin(self, collection_id: str, plan: str) -> None:
        """Make the folder, and say what it is for.

        Raises:
            PlanError: if that cannot be written.
        """
        with _writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            if not self.facts:
                self.facts = {"collection_id": collection_id, "plan": plan}
                self._append([self.facts])

    def intend(self, entries: Sequence[Entry]) -> None:
        """Remember files before they move."""
        self._append([asdict(entry) for entry in entries])
        self.entries.update({entry.image_id: entry for entry in entries})
        self.done.difference_update(entry.image_id for entry in entries)

    def finish(self, ids: Sequence[int]) -> None:
        """Remember that files are in quarantine and their rows are out of the collection."""
        self._append([{"done": list(ids)}])
        self.done.update(ids)

    def hidden(self, entry: Entry) -> str:
        """Where in the folder the file of ``entry`` lies, or would."""
        return hiding_place(self.folder, entry.image_id, entry.path)

    def parts(self, entry: Entry) -> tuple[str, str]:
        """Where an unfinished copy of the file lies on its way into the folder, and back."""
        back = os.path.join(os.path.dirname(entry.path), f".{entry.image_id}.part")
        return f"{self.hidden(entry)}.part", back

    def sweep(self) -> None:
        """Remove the unfinished copies that a killed process left."""
        for entry in self.entries.values():
            for part in self.parts(entry):
                discard(part)

    def save_rows(self, rows: pa.Table) -> None:
        """Keep rows of the collection, all columns, before they leave it."""
        import pyarrow as pa

        number = 1 + max((int(path.stem[5:]) for path in self._row_files()), default=0)
        part = self.folder / f"{secrets.token_hex(8)}.rows.part"
        with _writing(self.folder):
            try:
                with part.open("wb") as file:
                    with pa.ipc.new_file(file, rows.schema) as writer:
                        writer.write_table(rows)
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(self.folder / f"rows-{number:06d}.arrow")
            finally:
                part.unlink(missing_ok=True)

    def saved_rows(self) -> Iterator[pa.Table]:
        """The rows that were kept, newest first."""
        import pyarrow as pa

        for path in sorted(self._row_files(), reverse=True):
            with path.open("rb") as file:
                yield pa.ipc.open_file(file).read_all()

    def forget(self) -> None:
        """Remove the folder, as all is back; what others put into it stays."""
        if self.facts:
            for path in (*self._row_files(), *self.folder.glob("*.rows.part")):
                path.unlink()
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _row_files(self) -> list[Path]:
        return list(self.folder.glob("rows-*.arrow"))

    def _lines(self) -> list[dict[str, Any]]:
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        self._whole = data.rfind(b"\n") + 1
        try:
            return [json.loads(line) for line in data[: self._whole].splitlines()]
        except ValueError as error:
            raise PlanError(f"{self._path} is damaged: {error}") from error

    def _append(self, lines: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with _writing(self.folder), self._path.open("ab") as file:
            file.truncate(self._whole)  # a killed process may have left half a line
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(text)


def all_columns(store: Store) -> list[str]:
    """Everything that rows hold; whether they have a vector follows from their vectors."""
    spaces = (store.vector_column(name) for name in store.spaces)
    return [*store.columns().names, "thumbnail", *spaces]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from working at the plans of a folder; a killed one's turn ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        taken = error.errno in (errno.EEXIST, errno.ENOTDIR)
        what = "something else has its name" if taken else error.strerror or str(error)
        raise PlanError(f"quarantine {folder} cannot be written: {what}{advice(error)}") from error
