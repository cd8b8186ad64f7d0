"""What a folder says of itself that is an export: of which collection, and which files are ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from retrieval.errors import ExportError
from retrieval.query.export.report import whole_file, writing

MARK = ".retrieval-export.json"
"""Name of the file: a line with the facts of the export, and one for every file."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that an export put into its folder.

    Attributes:
        file: its place in the folder, with ``/``; as ``os.fsdecode`` gives it.
        image_id: of the image.
        source: path that it was made of.
        content_hash: of its content.
    """

    file: str
    image_id: int
    source: str
    content_hash: str


class Mark:
    """The memory of a folder that is an export.

    Attributes:
        earlier: the files that were put there before, by their place.
    """

    def __init__(self, out: Path, facts: Mapping[str, str]) -> None:
        """Make the folder, or see that it is ours.

        Raises:
            ExportError: if it holds something else than an export of this collection, or cannot be
                written.
        """
        self.earlier: dict[str, Written] = {}
        self._facts = dict(facts)
        self._path = out / MARK
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            try:
                lines = self._path.read_bytes().splitlines(keepends=True)
            except FileNotFoundError:
                if any(out.iterdir()):
                    raise ExportError(
                        f"{out} is not empty: export into a new folder or an earlier export"
                    ) from None
                lines = []
        if lines:
            self._read(lines)
        self.keep(self.earlier)

    def keep(self, files: Mapping[str, Written]) -> None:
        """Say that these files are ours, and no others."""
        with whole_file(self._path) as path, path.open("w", encoding="ascii") as file:
            file.write(json.dumps(self._facts) + "\n")
            file.writelines(json.dumps(asdict(written)) + "\n" for written in files.values())

    @contextlib.contextmanager
    def adding(self) -> Iterator[TextIO]:
        """Where :func:`note` tells of files before they are there."""
        with writing(self._path), self._path.open("a", encoding="ascii", buffering=1) as file:
            yield file

    def _read(self, lines: list[bytes]) -> None:
        if not lines[-1].endswith(b"\n"):  # a killed export's
            lines.pop()
        try:
            of = json.loads(lines[0])["collection_id"]
            for line in lines[1:]:
                written = Written(**json.loads(line))
                self.earlier[written.file] = written
        except (ValueError, LookupError, TypeError) as error:
            raise ExportError(f"{self._path} is damaged: export into a new folder") from error
        if of != self._facts["collection_id"]:
            raise ExportError(
                f"{self._path.parent} is an export of another collection: choose another folder"
            )


def note(file: TextIO, written: Written) -> None:
    """Remember a file that is about to be written."""
    file.write(json.dumps(asdict(written)) + "\n")
