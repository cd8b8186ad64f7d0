"""What a quarantine folder remembers: which files were to move, and the rows they had."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexers.marks import JOURNAL
from indexers.quarantine.files import discard, hiding_place
from retrieval.errors import PlanError
from retrieval.folders import advice, sync, whole_file
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
            elif "stayed" in line:
                self._drop(line["stayed"])
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
                facts = {"collection_id": collection_id, "plan": plan}
                self._append([facts])
                self.facts = facts
                sync(self.folder)
                sync(self.folder.parent)

    def intend(self, entries: Sequence[Entry]) -> None:
        """Remember files before they move."""
        self._append([asdict(entry) for entry in entries])
        self.entries.update({entry.image_id: entry for entry in entries})
        self.done.difference_update(entry.image_id for entry in entries)

    def finish(self, ids: Sequence[int]) -> None:
        """Remember that files are in quarantine and their rows are out of the collection."""
        self._append([{"done": list(ids)}])
        self.done.update(ids)

    def stay(self, ids: Sequence[int]) -> None:
        """Forget files that did not move or are back: they are none of undo's business any more."""
        self._append([{"stayed": list(ids)}])
        self._drop(ids)

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

        if not len(rows):
            return
        number = 1 + max((int(path.stem[5:]) for path in self._row_files()), default=0)
        place = self.folder / f"rows-{number:06d}.arrow"
        with (
            _writing(self.folder),
            whole_file(place) as part,
            pa.ipc.new_file(str(part), rows.schema) as writer,
        ):
            writer.write_table(rows)

    def saved_rows(self) -> Iterator[pa.Table]:
        """The rows that were kept, newest first.

        Raises:
            PlanError: if a file of them is damaged.
        """
        import pyarrow as pa

        for path in sorted(self._row_files(), reverse=True):
            try:
                with path.open("rb") as file:
                    yield pa.ipc.open_file(file).read_all()
            except (OSError, pa.ArrowException) as error:
                raise PlanError(
                    f"{path} is damaged, and with it rows that left the collection: put it right, "
                    "or move it elsewhere to have the files back without those rows"
                ) from error

    def forget(self) -> None:
        """Remove the folder, as all is back; what others put into it stays."""
        if self.facts:
            for path in (*self._row_files(), *self.folder.glob(".*.part")):
                path.unlink()
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _drop(self, ids: Sequence[int]) -> None:
        for image_id in ids:
            self.entries.pop(image_id, None)
            self.done.discard(image_id)

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
def alone(*places: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes from working at plans of a folder or of a local collection.

    The folders themselves are locked, so that nothing is left in them; a killed process's turn
    ends.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with ExitStack() as stack:
        for place in sorted({os.path.realpath(p) for p in places if os.path.isdir(p)}):
            descriptor = os.open(place, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        taken = error.errno in (errno.EEXIST, errno.ENOTDIR)
        what = "something else has its name" if taken else error.strerror or str(error)
        raise PlanError(f"quarantine {folder} cannot be written: {what}{advice(error)}") from error
