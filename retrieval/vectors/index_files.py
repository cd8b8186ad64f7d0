"""Indexes on disk: published in one move, checked before they are trusted, swept when replaced.

A folder of a space holds ``part-…`` folders of vectors (see
:mod:`~retrieval.vectors.vector_file`), which several indexes may share, and one folder an index:
``index.json``, the image id of every position, and the files of its kind.
None of them ever changes, so whoever has one open keeps reading what it opened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import folders
from retrieval.errors import DamagedIndex, RetrievalError, VectorIndexError
from retrieval.vectors import vector_file
from retrieval.vectors.base import Effort, Positions, VectorIndex
from retrieval.vectors.kinds import backend
from retrieval.vectors.sorted_ids import places
from retrieval.vectors.vector_file import VectorFile

NOTE = "index.json"
_IDS = "ids.bin"
_STEPS = 10  # in which an index may be behind another
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenIndex:
    """An index that was opened and found whole.

    Attributes:
        folder: where it is.
        facts: what ``index.json`` says.
        ids: int64 ``[n]``: image id of each position; -1 where the row was dead already when the
            index was written.
        rows: the vectors.
        index: finds candidates.
    """

    folder: Path
    facts: Mapping[str, Any]
    ids: NDArray[np.int64]
    rows: VectorFile
    index: VectorIndex

    @property
    def kind(self) -> str:
        """Kind of index."""
        return str(self.facts["kind"])

    @property
    def version(self) -> int:
        """Version of the table of images that it holds."""
        return int(self.facts["version"])

    @property
    def effort(self) -> Effort:
        """How thoroughly it looks, as tuned."""
        return Effort(*self.facts["effort"])

    @property
    def parts(self) -> list[str]:
        """Names of the parts its vectors lie in, in order."""
        return [part["name"] for part in self.facts["parts"]]

    def positions_of(self, ids: NDArray[np.int64]) -> Positions:
        """Position of each image id; -1 where the index has none."""
        known, at = self._by_id
        if len(known) == 0:
            return np.full(len(ids), -1, dtype=np.int64)
        found = places(known, ids)
        return np.where(found >= 0, at[found], -1)

    @cached_property
    def _by_id(self) -> tuple[NDArray[np.int64], Positions]:
        """Living ids, sorted, and their positions."""
        at = np.flatnonzero(self.ids >= 0)
        ids = self.ids[at]
        if len(ids) > 1 and not (ids[1:] > ids[:-1]).all():
            order = np.argsort(ids, kind="stable")
            ids, at = ids[order], at[order]
        return ids, at


def publish(
    space: Path,
    kind: str,
    facts: Mapping[str, Any],
    ids: NDArray[np.int64],
    parts: Sequence[str],
    make: Callable[[Path], Mapping[str, Any]],
) -> Path:
    """Write an index and show it to all processes in one move.

    Args:
        space: folder of the space, where the parts are.
        kind: kind of index.
        facts: at least ``owner`` (of the space), ``version`` and ``images`` (of the table).
        ids: image id of each position.
        parts: names of the parts that hold the vectors.
        make: writes the index's own files into a folder, and returns ``effort`` and ``measured``.

    Returns:
        Its folder.

    Raises:
        VectorIndexError: if it cannot be built, or written.
    """

    def inside(folder: Path) -> dict[str, Any]:
        (folder / _IDS).write_bytes(ids.data)  # tofile() does not say why it fails
        sealed = [{"name": name, "seal": _seal(space / name)} for name in parts]
        more = make(folder)
        return {"kind": kind, "rows": len(ids), "parts": sealed, **facts, **more}

    name = f"{kind}-{facts['version']:012d}-{secrets.token_hex(4)}"
    try:
        folders.write(space / name, NOTE, inside)
    except OSError as error:
        raise VectorIndexError(
            f"an index cannot be written to {space}: {error}{folders.advice(error)}"
        ) from error
    return space / name


def newest(
    space: Path,
    owner: Sequence[Any],
    version: int,
    kind: str | None,
    *,
    opened: OpenIndex | None = None,
    without: Collection[Path] = (),
) -> OpenIndex | None:
    """The best index for the rows of a version; None if there is none.

    Of each kind the latest counts. Of these, those that reached their target come first; then
    those that hold about as many rows as the latest of all (in steps of a tenth: the rows that one
    has not are scanned beside it, and which are dead or replaced its note does not tell); then the
    fastest.

    One that is proven damaged is thrown away, with a warning, and the next best is taken. One that
    cannot be used now, or that a newer version of this software wrote, stays where it is.

    Args:
        space: folder of the space.
        owner: whose the index must be, as JSON values.
        version: newest table version that it may hold.
        kind: only this kind; None for any.
        opened: is not opened again if it is still the best.
        without: folders of indexes that are not to be used.
    """
    for folder in _best_first(_candidates(space, kind)):
        known = opened if opened is not None and opened.folder == folder else None
        try:
            facts = known.facts if known else folders.read_note(folder, NOTE)
            if facts["format"] > folders.FORMAT:
                raise VectorIndexError("a newer version of this software wrote it")
            if facts["owner"] != list(owner) or facts["version"] > version or folder in without:
                continue
            if known is not None:
                return known
            if backend(facts["kind"]).missing() is None:
                return _open(space, folder, facts)
        except (DamagedIndex, FileNotFoundError, ValueError, TypeError, KeyError) as error:
            if folder.exists():  # not replaced by another process at this moment
                _log.warning("an index is damaged and will be built again: %s", error)
                discard(folder)
        except (RetrievalError, OSError, MemoryError) as error:
            _log.warning("the index %s cannot be used now and is left out: %s", folder, error)
    return None


def discard(folder: Path) -> None:
    """Throw an index away, where that is allowed."""
    with contextlib.suppress(OSError):
        gone = folder.with_name(f".{secrets.token_hex(8)}.part")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(space: Path, keep: Sequence[Path]) -> None:
    """Remove every index but those in ``keep``, parts that none of them needs, and leavings."""
    kept = {path.name for path in keep}
    needed: set[str] = set()
    for path in keep:
        with contextlib.suppress(OSError, ValueError, KeyError):
            needed.update(part["name"] for part in folders.read_note(path, NOTE)["parts"])
    # Parts last: an index whose part is gone would look damaged to who opens it now.
    for folder in sorted(space.iterdir(), key=lambda path: path.name.startswith("part-")):
        wanted = folder.name in kept or folder.name in needed or folder.name.startswith(".")
        if not wanted and folder.is_dir():
            discard(folder)
    folders.sweep(space)


def published(space: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders and facts of all indexes, newest first; nothing but their notes is read."""
    found = []
    for folder in _candidates(space, None):
        with contextlib.suppress(OSError, ValueError):
            found.append((folder, folders.read_note(folder, NOTE)))
    return found


def kinds(space: Path) -> list[str]:
    """Kinds of all indexes, whole or not, newest first."""
    return list(dict.fromkeys(_kind(folder.name) for folder in _candidates(space, None)))


def _candidates(space: Path, kind: str | None) -> list[Path]:
    """Index folders, latest version first."""
    try:
        found = [
            folder
            for folder in space.iterdir()
            if not folder.name.startswith((".", "part-")) and _version(folder.name) is not None
        ]
    except OSError:
        return []
    if kind is not None:
        found = [folder for folder in found if _kind(folder.name) == kind]
    return sorted(found, key=lambda folder: _version(folder.name) or 0, reverse=True)


def _best_first(found: Sequence[Path]) -> list[Path]:
    """Order folders, of which the latest version comes first, as :func:`newest` says."""
    told = {folder: _told(folder) for folder in found}
    kinds = [_kind(folder.name) for folder in found]
    replaced = {folder: kinds.index(kinds[at]) < at for at, folder in enumerate(found)}
    most = max(1, next((rows for rows, _, _ in told.values() if rows), 1))

    def order(folder: Path) -> tuple[bool, bool, int, float]:
        rows, missed, latency_ms = told[folder]
        return replaced[folder], missed, _STEPS * max(0, most - rows) // most, latency_ms

    return sorted(found, key=order)


def _told(folder: Path) -> tuple[int, bool, float]:
    """Rows, whether the target was missed, and latency, as a note says that nobody checked yet."""
    try:
        facts = json.loads((folder / NOTE).read_bytes())
        measured = facts["measured"]
        missed = bool(measured["low"] < measured["target"])
        return int(facts["rows"]), missed, float(measured["latency_ms"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return 0, True, float("inf")


def _kind(name: str) -> str:
    return name.rsplit("-", 2)[0]


def _version(name: str) -> int | None:
    fields = name.rsplit("-", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdecimal() else None


def _open(space: Path, folder: Path, facts: Mapping[str, Any]) -> OpenIndex:
    folders.check(folder, facts)
    n = int(facts["rows"])
    ids = np.fromfile(folder / _IDS, dtype=np.int64)
    for part in facts["parts"]:
        if _seal(space / part["name"]) != part["seal"]:
            raise DamagedIndex(f"{space / part['name']} is not what {folder} was made from")
    rows = VectorFile([space / part["name"] for part in facts["parts"]])
    if not len(ids) == rows.shape[0] == n:
        raise DamagedIndex(f"the files of {folder} do not fit together")
    try:
        index = backend(facts["kind"]).open(folder, rows)
    except Exception as error:  # whatever it is, every byte was just seen to be as written
        raise VectorIndexError(f"{folder} cannot be opened: {error}") from error
    return OpenIndex(folder, facts, ids, rows, index)


def _seal(part: Path) -> str:
    return folders.digest(part / vector_file.NOTE)
