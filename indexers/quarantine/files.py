"""Moving single files so that no byte is lost, whatever happens and whenever."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from retrieval import folders
from retrieval.uris import path_of

_NAME_MAX = 255
_ONE_FILE = ("st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns")


def why_not(path: str | None, content_hash: str) -> str | None:
    """Why the file at ``path`` cannot be taken for the one of ``content_hash``; None if it can."""
    if path is None:
        return "no local file"
    try:
        facts = os.lstat(path)
        if stat.S_ISLNK(facts.st_mode):
            return "a symbolic link now, which may point anywhere"
        if not stat.S_ISREG(facts.st_mode):
            return "no file any more"
        if folders.digest(Path(path)) != content_hash:
            return "its content changed since"
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except (OSError, ValueError) as error:
        return f"cannot be read: {_told(error)}"
    return None


def still(path: str, facts: os.stat_result) -> bool:
    """Whether the file at ``path`` is the one of ``facts``, neither replaced nor written to.

    Raises:
        OSError: if there is none.
    """
    now = os.lstat(path)
    return all(getattr(now, name) == getattr(facts, name) for name in _ONE_FILE)


def one_place(uri: str, other: str) -> bool:
    """Whether two uris lead to one directory entry, so that moving one takes the other away.

    Two hard links of one file are two entries. A file that is gone has none.
    """
    path, beside = path_of(uri), path_of(other)
    if path is None or beside is None:
        return False
    try:
        facts, others = os.lstat(path), os.lstat(beside)
    except OSError:
        return False
    if not os.path.samestat(facts, others):
        return False
    return facts.st_nlink == 1 or os.path.realpath(path) == os.path.realpath(beside)


def hiding_place(folder: Path, image_id: int, path: str) -> str:
    """Where in quarantine the file of an image lies; its name begins with the id."""
    name = os.path.basename(path)
    while len(os.fsencode(f"{image_id}-{name}.part")) > _NAME_MAX:
        name = name[1:]
    return os.path.join(folder, f"{image_id}-{name}")


def move(source: str, target: str, part: str, content_hash: str, facts: os.stat_result) -> None:
    """Move a file; what is at ``target`` is never overwritten.

    Within a file system it is a link and an unlink, since a rename would overwrite. Across file
    systems the copy is whole, checked and on disk before the original goes. Killed in between,
    both are there, and :func:`finish` tells whether they are one.

    Args:
        source: the file.
        target: where it goes; its folder is there.
        part: name for an unfinished copy, in the folder of ``target``.
        content_hash: of the file.
        facts: of the file when its content was looked at; another one does not move.

    Raises:
        FileExistsError: if there is something at ``target``.
        OSError: if it cannot be moved, or changed meanwhile; it is where it was then.
    """
    _same(source, facts)
    try:
        both = folders.place(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        both = True
        try:
            _copy(source, part, content_hash)
            folders.place(part, target)
        finally:
            discard(part)
        folders.sync(os.path.dirname(target))  # in one file system names change in their order
    if both:
        try:
            _same(source, facts)
            os.unlink(source)
        except OSError:  # another file has its name now, or its folder cannot be written
            if not os.path.lexists(source):
                return
            os.unlink(target)
            raise


def finish(source: str, target: str, content_hash: str) -> bool:
    """End a move that was killed when both were there; False if ``source`` is another file."""
    facts, others = os.lstat(source), os.lstat(target)
    if not os.path.samestat(facts, others):
        same = ("st_mode", "st_size", "st_mtime_ns")
        if any(getattr(facts, name) != getattr(others, name) for name in same):
            return False
        if why_not(source, content_hash) or why_not(target, content_hash):
            return False
        folders.sync(os.path.dirname(target))
    if not still(source, facts) or not still(target, others):
        return False
    os.unlink(source)
    return True


def discard(part: str) -> None:
    """Remove an unfinished copy, where there is one."""
    with contextlib.suppress(OSError):
        os.unlink(part)


def _copy(source: str, part: str, content_hash: str) -> None:
    shutil.copyfile(source, part)
    facts = os.stat(source)
    with contextlib.suppress(PermissionError):  # only the superuser gives files away
        os.chown(part, facts.st_uid, facts.st_gid)
    shutil.copystat(source, part)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    if folders.digest(Path(part)) != content_hash:
        raise OSError(errno.EIO, "the copy is not what was read", source)


def _same(path: str, facts: os.stat_result) -> None:
    if not still(path, facts):
        raise OSError(errno.EBUSY, "it was changed at that moment", path)


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
