"""What came of an export, and how its files are written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval import folders
from retrieval.errors import ExportError


@dataclass(slots=True)
class ExportReport:
    """What one export wrote.

    Attributes:
        form: ``parquet``, ``csv``, ``coco`` or ``folder``.
        out: where.
        images: images that are in the export now.
        skipped: how many of them were there before (folders only).
        removed: files of earlier exports that were taken away, since this one has no such image
            at that place (folders only).
        refused: images that are not in it, and files that should not be: their uri and why (folders
            only).
        folders: labels and splits that are no names of folders, and what they became.
    """

    form: str
    out: str
    images: int = 0
    skipped: int = 0
    removed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "form": self.form,
            "out": self.out,
            "images": self.images,
            "skipped": self.skipped,
            "removed": self.removed,
            "refused": [{"uri": uri, "reason": reason} for uri, reason in self.refused],
            "folders": self.folders,
        }


@contextlib.contextmanager
def writing(out: str | os.PathLike[str]) -> Iterator[None]:
    """Tell of a place that cannot be written.

    Raises:
        ExportError: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise ExportError(
            f"{os.fspath(out)} cannot be written: {what}{folders.advice(error)}"
        ) from error


@contextlib.contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A file to write beside ``out``, which takes its place when it is whole and on disk.

    Raises:
        ExportError: if it cannot be written; nothing is left then, and ``out`` is as it was.
    """
    with writing(out), folders.whole_file(out) as beside:
        yield beside
