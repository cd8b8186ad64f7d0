"""The files themselves, in one folder a label."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO, TypeAlias

from retrieval import folders
from retrieval.images import content_hash
from retrieval.query.export.mark import Mark, Written, note
from retrieval.query.export.names import folder_names, one
from retrieval.query.export.report import ExportReport, writing
from retrieval.query.export.selection import Selection
from retrieval.uris import path_of, uri_of
from retrieval.vectors.tiles import Tell

Link: TypeAlias = Literal["copy", "hard", "symbolic"]
_COLUMNS = ("image_id", "uri", "content_hash", "size_bytes", "mtime_ns", "label", "split")
_CHANGED = "it changed since it was indexed: index it again"
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def write_folder(
    chosen: Selection, out: Path, link: Link, report: ExportReport, tell: Tell | None
) -> None:
    """``OUT/LABEL/NAME``, or ``OUT/SPLIT/LABEL/NAME`` where an image has a split.

    Images without a label go to ``unlabelled``; those without a split to ``unsplit`` where others
    have one. A name that is taken gets the image's id. Nothing is overwritten; what is there with
    the same bytes is skipped, so that an interrupted export goes on. What earlier exports put there
    and this one does not is removed, if it did not change and its content is elsewhere. A file that
    is gone or is not what was indexed, or that cannot be written or removed, is told in ``report``
    and stops nothing: copies are compared by their content hash, links by size and time.

    Raises:
        ExportError: if ``out`` holds something else than an export of this collection, or nothing
            can be written there any more.
    """
    mark = Mark(out, chosen.facts)
    labels: set[str | None] = set()
    splits: set[str | None] = set()
    for block in chosen.blocks(("label", "split")):
        labels.update(block["label"].unique().to_pylist())
        splits.update(block["split"].unique().to_pylist())
    label_names = folder_names(labels, "unlabelled")
    split_names: dict[str | None, str] = {None: ""}
    if splits - {None}:
        split_names = folder_names(splits, "unsplit")
    for name, folder in (*split_names.items(), *label_names.items()):
        if name is not None and name != folder:
            report.folders[name] = folder
    report.images = 0
    with mark.adding() as noted:
        run = _Run(out, link, mark.earlier, noted, report)
        for block in chosen.blocks(_COLUMNS, tell):
            for row in block.to_pylist():
                reason = run.bring(row, split_names[row["split"]], label_names[row["label"]])
                if reason is None:
                    report.images += 1
                else:
                    report.refused.append((row["uri"], reason))
    mark.keep(run.clear())


class _Run:
    def __init__(
        self,
        out: Path,
        link: Link,
        earlier: dict[str, Written],
        noted: TextIO,
        report: ExportReport,
    ) -> None:
        self._out = out
        self._link = link
        self._earlier = earlier
        self._named = {written.image_id: written.file for written in earlier.values()}
        self._noted = noted
        self._report = report
        self._placed: dict[str, Written | None] = {}  # None: of somebody else, with the same bytes

    def bring(self, row: dict[str, Any], *inside: str) -> str | None:
        """Put one file into a folder; why it could not be done, or None."""
        source = path_of(row["uri"])
        if source is None:
            return "no local file"
        try:
            facts = os.lstat(source)
        except OSError as error:
            return "gone" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        if not stat.S_ISREG(facts.st_mode):
            return "no file any more"
        reason = None
        for file in self._names(PurePosixPath(*inside), source, row["image_id"]):
            if one(file) in self._placed:
                continue
            target, written = self._out / file, self._earlier.get(file)
            if os.path.lexists(target):
                if not _is_there(target, source, row, self._link):
                    if written is not None and written.image_id == row["image_id"]:
                        self._placed[one(file)] = written
                        return (
                            f"an earlier export left another file for it: delete {uri_of(target)}"
                        )
                    reason = f"something else is at {uri_of(target)}"
                    continue
                self._report.skipped += 1
            else:
                written = Written(file, row["image_id"], source, row["content_hash"])
                note(self._noted, written)
                if reason := _put(source, facts, target, self._link, row):
                    return reason
            self._placed[one(file)] = written
            return None
        return reason or "other images have its names"

    def clear(self) -> dict[str, Written]:
        """Remove what is not in this export; all files that are ours then."""
        ours = {written.file: written for written in self._placed.values() if written is not None}
        hashes = {written.content_hash for written in ours.values()}
        for file, written in self._earlier.items():
            if file in ours or not os.path.lexists(self._out / file):
                continue
            if reason := self._removed(written, hashes):
                self._report.refused.append((uri_of(self._out / file), reason))
                ours[file] = written
        return ours

    def _removed(self, written: Written, hashes: set[str]) -> str | None:
        """Remove one file of an earlier export; why it stays, or None."""
        target = self._out / written.file
        told = "left from an earlier export"
        try:
            other = self._placed.get(one(written.file))
            if other and os.path.samestat(os.lstat(target), os.lstat(self._out / other.file)):
                return f"{told}: it is {other.file}, by another name"
            if target.is_symlink():
                if os.readlink(target) != written.source:
                    return f"{told}: it changed since"
            elif folders.digest(target) != written.content_hash:
                return f"{told}: it changed since"
            elif written.content_hash not in hashes and not _has(written):
                return f"{told}: its original is gone"
            target.unlink()
        except OSError as error:
            return f"{told}: {error.strerror or error}"
        self._report.removed += 1
        with contextlib.suppress(OSError):  # they are not empty
            for folder in PurePosixPath(written.file).parents:
                (self._out / folder).rmdir()
        return None

    def _names(self, inside: PurePosixPath, source: str, image_id: int) -> list[str]:
        """Places that an image may have, best first."""
        stem, extension = os.path.splitext(os.path.basename(source))
        end = f"-{image_id}{extension}"
        plain = str(inside / f"{stem}{extension}")
        while len(os.fsencode(stem + end)) > 255:
            stem = stem[:-1]
        names = [plain, str(inside / f"{stem}{end}")]
        before = self._named.get(image_id)
        return sorted(names, key=lambda name: name != before)


def _has(written: Written) -> bool:
    """Whether the original is there as it was."""
    try:
        return (
            stat.S_ISREG(os.lstat(written.source).st_mode)
            and folders.digest(Path(written.source)) == written.content_hash
        )
    except OSError:
        return False


def _is_there(target: Path, source: str, row: dict[str, Any], link: Link) -> bool:
    if link == "symbolic":
        return target.is_symlink() and os.readlink(target) == source
    try:
        if not stat.S_ISREG(os.lstat(target).st_mode):
            return False
        if link == "hard":
            return os.path.samefile(target, source)
        return folders.digest(target) == str(row["content_hash"])
    except OSError:
        return False


def _put(
    source: str, facts: os.stat_result, target: Path, link: Link, row: dict[str, Any]
) -> str | None:
    """Make one file; why it could not be done, or None."""
    looks = (row["size_bytes"], row["mtime_ns"])
    if link != "copy" and looks != (facts.st_size, facts.st_mtime_ns):
        return _CHANGED
    with writing(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if link == "symbolic":
                target.symlink_to(source)
            elif link == "hard":
                os.link(source, target)
            else:
                return _copy(source, facts, target, row)
        except OSError as error:
            if error.errno in _HOPELESS:
                raise
            if error.errno == errno.EXDEV:
                return "hard links cannot lead to another disk: export copies or symbolic links"
            return f"cannot be written: {error.strerror or error}"
    return None


def _copy(source: str, facts: os.stat_result, target: Path, row: dict[str, Any]) -> str | None:
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if content_hash(data) != row["content_hash"]:
        return _CHANGED
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(stat.S_IMODE(facts.st_mode))
        os.utime(part, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        folders.place(part, target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return None
