"""Folders of files that are made once and used by many processes: whole, or not there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval import settings
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.files import STALE_AFTER_S
from retrieval.errors import EncoderError

FACTS = "encoder.json"
"""What a folder says of itself; under ``files`` also the size and digest of each other file."""

_HERE = threading.RLock()


def made(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """See that ``folder`` is there, whole, and give its facts.

    One process at a time makes it, where the system has file locks; where not, the first one wins.
    It appears in one move: a process that is killed leaves nothing that is taken for whole, and
    what it leaves goes away at a later call. A folder whose files have changed is made again.

    Args:
        folder: where; its parent belongs to this cache.
        make: writes files into the folder that it is given, and returns facts for JSON.

    Raises:
        EncoderError: if it cannot be written, or from ``make``.
    """
    with contextlib.suppress(EncoderError):
        return facts_of(folder / FACTS)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _HERE, _turn(folder):
            with contextlib.suppress(EncoderError):
                return facts_of(folder / FACTS)  # another process made it meanwhile
            _sweep(folder.parent)
            return _write(folder, make)
    except OSError as error:
        raise EncoderError(
            f"cannot write {folder}: {error}; make room there, or choose another place with "
            "RETRIEVAL_CACHE"
        ) from error


def write_new(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Make a folder that the user named; see :func:`made`.

    Raises:
        EncoderError: if there is something already, or it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EncoderError(f"{folder} is not empty: choose a folder that is not there yet")
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _write(folder, make)
    except OSError as error:
        raise EncoderError(f"cannot write {folder}: {error}") from error


def _write(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Make ``folder`` in one move, in place of what is there."""
    beside = folder.with_name(f".{secrets.token_hex(8)}.part")
    beside.mkdir()
    try:
        facts = {"format": 1, **make(beside)}
        names = sorted(path.name for path in beside.iterdir())
        facts["files"] = {
            name: {"bytes": (beside / name).stat().st_size, "blake2b": _digest(beside / name)}
            for name in names
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False)
        (beside / FACTS).write_text(text + "\n", encoding="utf-8")
        for path in beside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():  # damaged, or asked to be replaced
            folder.rename(old := folder.with_name(f".{secrets.token_hex(8)}.part"))
            shutil.rmtree(old, ignore_errors=True)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return facts


def facts_of(path: Path) -> dict[str, Any]:
    """Read ``encoder.json``, and see that the files that it names are as they were made.

    A file's content is read only when its size or time changed since the last look.

    Raises:
        EncoderError: if it is not there, or damaged.
    """
    folder = path.parent
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        files = facts.get("files", {})
        for name, known in files.items():
            size = (folder / name).stat().st_size
            if size != known["bytes"] or _digest(folder / name) != known["blake2b"]:
                raise EncoderError(f"{folder / name} is damaged: get the folder again")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
    found: dict[str, Any] = facts
    return found


def _digest(path: Path) -> str:
    return weights_hash((path,), settings.load().cache_dir)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process makes ``folder``; the system ends a killed one's turn."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(parent: Path) -> None:
    """Remove what killed processes left."""
    limit = time.time() - STALE_AFTER_S
    for old in parent.glob(".*.part"):
        with contextlib.suppress(OSError):  # another process may have removed it first
            if old.stat().st_mtime < limit:
                shutil.rmtree(old)
