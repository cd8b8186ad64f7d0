"""Folders of image files."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from indexers.marks import is_ours, is_unfinished
from retrieval.errors import SourceError
from retrieval.images import IMAGE_EXTENSIONS, looks_like_image
from retrieval.uris import uri_of


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that looks like an image from outside.

    Attributes:
        path: absolute, as ``os.fsdecode`` gives it.
        uri: the path as text.
        size_bytes: size when it was found.
        mtime_ns: time of last change, nanoseconds since the epoch.
    """

    path: str
    uri: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unfindable:
    """A folder that could not be listed."""

    uri: str
    reason: str


class FolderSource:
    """Image files below a folder, in the order of their names; or one image file.

    A file is a candidate if its extension or its first bytes say image. Symbolic links are not
    followed, neither to files nor to folders, so that nothing is met twice or without end. Exports,
    quarantines and unfinished files (``.NAME.part``) that lie below the folder are passed over.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        """Look below ``root``.

        Args:
            root: folder or file.
            include: globs on the path relative to ``root``; with any, a file must match one.
            exclude: globs on the path relative to ``root``; a file or folder that matches is left
                out.

        Raises:
            SourceError: if ``root`` is empty or not there, or the globs are no lists.
        """
        if not os.fspath(root):
            raise SourceError("the source is empty: name a folder or an image file")
        if isinstance(include, str) or isinstance(exclude, str):
            raise SourceError("include and exclude are lists of globs: ['*.jpg']")
        self.root = os.path.realpath(os.path.expanduser(os.fspath(root)))
        if not os.path.exists(self.root):
            raise SourceError(f"there is no file or folder {os.fspath(root)!r}")
        self.include = tuple(include)
        self.exclude = tuple(exclude)

    def covers(self, path: str) -> bool:
        """Whether ``path`` lies in this source, there or not, matched by the globs or not."""
        return path == self.root or path.startswith(self.root.rstrip(os.sep) + os.sep)

    def __iter__(self) -> Iterator[FoundFile | Unfindable]:
        """Candidates in a fixed order, and folders that could not be listed."""
        if not os.path.isdir(self.root):
            found = self._candidate(self.root, os.path.basename(self.root))
            if found:
                yield found
            return
        pending = [self.root]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield Unfindable(uri_of(folder), error.strerror or str(error))
                continue
            folders = []
            for entry in entries:
                relative = os.path.relpath(entry.path, self.root)
                if entry.is_dir(follow_symlinks=False):
                    if not _matches(relative, self.exclude) and not is_ours(entry.path):
                        folders.append(entry.path)
                elif found := self._candidate(entry.path, relative):
                    yield found
            pending.extend(reversed(folders))

    def _candidate(self, path: str, relative: str) -> FoundFile | None:
        if is_unfinished(os.path.basename(path)) or _matches(relative, self.exclude):
            return None
        if self.include and not _matches(relative, self.include):
            return None
        try:
            facts = os.lstat(path)
        except OSError:  # vanished between listing and looking: it was never there
            return None
        if not stat.S_ISREG(facts.st_mode):
            return None
        extension = os.path.splitext(path)[1].lower()
        if extension not in IMAGE_EXTENSIONS and not _sniff(path):
            return None
        return FoundFile(path, uri_of(path), facts.st_size, facts.st_mtime_ns)


def _matches(relative: str, patterns: Sequence[str]) -> bool:
    name = os.path.basename(relative)
    return any(fnmatch.fnmatch(relative, p) or fnmatch.fnmatch(name, p) for p in patterns)


def _sniff(path: str) -> bool:
    """Whether the first bytes say image; a file that cannot be opened says nothing."""
    try:
        with open(path, "rb") as file:
            return looks_like_image(file.read(64))
    except OSError:
        return False
