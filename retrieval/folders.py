"""Folders of files that are made once and read by many processes: whole, or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of what is written here. A later one keeps the note and its seal, and is not read."""
STALE_AFTER_S = 3600.0
"""A temporary file or folder that is older belongs to a process that was killed."""
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


def write(
    folder: Path,
    note: str,
    make: Callable[[Path], Mapping[str, Any]],
    *,
    by_size: Collection[str] = (),
) -> dict[str, Any]:
    """Make ``folder`` in one move, in place of what is there.

    Args:
        folder: where; what is in the way is moved away first.
        note: name of the JSON file that says what the folder is, under ``files`` the size and
            BLAKE2b-128 of every other file, and under ``seal`` the BLAKE2b-128 of all that.
        make: writes files into the folder that it is given, and returns facts for the note.
        by_size: files that tell by themselves whether they are whole, and get no digest.

    Returns:
        The facts, as the note has them.

    Raises:
        OSError: if it cannot be written; nothing is left then. And whatever ``make`` raises.
    """
    beside = folder.with_name(f".{secrets.token_hex(8)}.part")
    beside.mkdir(parents=True)
    try:
        facts = {"format": FORMAT, **make(beside)}
        facts["files"] = {
            path.relative_to(beside).as_posix(): _known(path, path.name in by_size)
            for path in sorted(beside.rglob("*"))
            if path.is_file()
        }
        facts["seal"] = _seal(facts)
        text = json.dumps(facts, indent=1, ensure_ascii=False)
        (beside / note).write_text(text + "\n", encoding="utf-8")
        for path in beside.rglob("*"):
            if path.is_file():
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


def check(folder: Path, facts: Mapping[str, Any]) -> None:
    """See that a folder is as it was written; every byte of it is read.

    Args:
        folder: that :func:`write` made.
        facts: what its note says, as :func:`read_note` gives it.

    Raises:
        OSError: if a file is missing.
        ValueError: if something is damaged.
    """
    for name, known in facts["files"].items():
        path = folder / name
        if path.stat().st_size != known["bytes"] or digest(path) != known.get("blake2b"):
            raise ValueError(f"{path} is damaged")


def read_note(folder: Path, note: str) -> dict[str, Any]:
    """What a folder says of itself.

    Raises:
        OSError: if the note is missing.
        ValueError: if it is damaged.
    """
    facts = json.loads((folder / note).read_bytes())
    if not isinstance(facts, dict) or facts.get("seal") != _seal(facts):
        raise ValueError(f"what {folder} says of itself is damaged")
    return facts


def changed_at(folder: Path) -> int:
    """A number that changes when something in ``folder`` appears or goes; 0 where there is none."""
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime_ns
    return 0


def digest(path: Path) -> str:
    """BLAKE2b-128 of a file's content, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which takes its place when it is whole and on disk.

    Raises:
        OSError: if it cannot be written; nothing is left then, and ``path`` is as it was.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def sync(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable, where a system can.

    Raises:
        OSError: if the disk fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def place(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool:
    """Give a file a second name in its file system; what is at ``target`` is never overwritten.

    Returns:
        False where a file can have one name only, and the first one had to go.

    Raises:
        FileExistsError: if there is something at ``target``.
        OSError: if it cannot be done.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            there = os.strerror(errno.EEXIST)
            raise FileExistsError(errno.EEXIST, there, os.fspath(target)) from error
        os.rename(source, target)
        return False
    return True


@contextlib.contextmanager
def turn(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Keep other processes from making ``folder``; the system ends a killed one's turn.

    Args:
        folder: what is to be made; its parent is there.
        wait: until it is our turn; if not, it may be another's.

    Yields:
        Whether it is our turn; always where a system knows no locks.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        ours = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ours = False
        except OSError:  # a file system without locks
            pass
        yield ours


def sweep(parent: Path) -> None:
    """Remove what killed processes left."""
    limit = time.time() - STALE_AFTER_S
    for old in parent.glob(".*.part"):
        with contextlib.suppress(OSError):  # another process may have removed it first
            if old.stat().st_mtime < limit:
                shutil.rmtree(old)


def advice(error: OSError) -> str:
    """What would help, as the end of a message about what cannot be written; often nothing."""
    return "; make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def _seal(facts: Mapping[str, Any]) -> str:
    told = {name: value for name, value in facts.items() if name != "seal"}
    text = json.dumps(told, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _known(path: Path, by_size: bool) -> dict[str, Any]:
    size = {"bytes": path.stat().st_size}
    return size if by_size else {**size, "blake2b": digest(path)}
