"""Folders of files that are made once and used by many processes: whole, or not there."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrieval import folders, settings
from retrieval.encoders.digests import weights_hash
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
        with _HERE, folders.turn(folder):
            with contextlib.suppress(EncoderError):
                return facts_of(folder / FACTS)  # another process made it meanwhile
            folders.sweep(folder.parent)
            return folders.write(folder, FACTS, make)
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
        return folders.write(folder, FACTS, make)
    except OSError as error:
        raise EncoderError(f"cannot write {folder}: {error}") from error


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
            digest = weights_hash((folder / name,), settings.load().cache_dir)
            if size != known["bytes"] or digest != known["blake2b"]:
                raise EncoderError(f"{folder / name} is damaged: get the folder again")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
    found: dict[str, Any] = facts
    return found
