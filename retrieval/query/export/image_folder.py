"""The files themselves, in one folder a label."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, Literal, TypeAlias

from retrieval import folders
from retrieval.errors import ExportError
from retrieval.images import content_hash
from retrieval.query.export.names import folder_names
from retrieval.query.export.report import ExportReport, whole_file, writing
from retrieval.query.export.selection import Selection, Tell
from retrieval.uris import path_of, uri_of

Link: TypeAlias = Literal["copy", "hard", "symbolic"]
MARK = ".retrieval-export.json"
"""Says that a folder is an export, and of which collection."""
_COLUMNS = ("image_id", "uri", "content_hash", "size_bytes", "mtime_ns", "label", "split")
_CHANGED = "it changed since it was indexed: index it again"


def write_folder(
    chosen: Selection, out: Path, link: Link, report: ExportReport, tell: Tell | None
) -> None:
    """``OUT/LABEL/NAME``, or ``OUT/SPLIT/LABEL/NAME`` where an image has a split.

    Images without a label go to ``unlabelled``; those without a split to ``unsplit`` where others
    have one. A name that is taken gets the image's id. Nothing is overwritten; what is there with
    the same bytes is skipped, so that an interrupted export goes on. A file that is gone or is not
    what was indexed is told in ``report`` and stops nothing: copies are compared by their content
    hash, links by size and time.

    Raises:
        ExportError: if ``out`` holds something else than an export of this collection, or cannot
            be written.
    """
    _claim(out, chosen)
    labels: set[str | None] = set()
    splits: set[str | None] = set()
    for block in chosen.blocks(("label", "split")):
        labels.update(block["label"].unique().to_pylist())
        splits.update(block["split"].unique().to_pylist())
    label_names = folder_names(labels, "unlabelled")
    label_names = folder_names(labels, "unlabelled")
    split_names: dict[str | None, str] = {None: ""}
    if splits - {None}:
        split_names = folder_names(splits, "unsplit")
    for name, folder in (*split_names.items(), *label_names.items()):
        if name is not None and name != folder:
            report.folders[name] = folder
    report.images = 0
    taken: set[Path] = set()
    for block in chosen.blocks(_COLUMNS, tell):
        for row in block.to_pylist():
            inside = out / split_names[row["split"]] / label_names[row["label"]]
            reason = _bring(row, inside, link, taken, report)
            if reason is None:
                report.images += 1
            else:
                report.refused.append((row["uri"], reason))


def _claim(out: Path, chosen: Selection) -> None:
    """Make the folder, or see that it is ours."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        mark = out / MARK
        try:
            of = json.loads(mark.read_bytes())["collection_id"]
        except FileNotFoundError:
            if any(out.iterdir()):
                raise ExportError(
                    f"{out} is not empty: export into a new folder or an earlier export"
                ) from None
            of = None
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(f"{mark} is damaged: export into a new folder") from error
        if of not in (None, chosen.facts["collection_id"]):
            raise ExportError(f"{out} is an export of another collection: choose another folder")
    if of is None:
        with whole_file(mark) as path:
            path.write_text(json.dumps(chosen.facts) + "\n", encoding="utf-8")


def _bring(
    row: dict[str, Any], folder: Path, link: Link, taken: set[Path], report: ExportReport
) -> str | None:
    """Put one file into ``folder``; why it could not be done, or None."""
    source = path_of(row["uri"])
    if source is None:
        return "no local file"
    try:
        facts = os.lstat(source)
    except OSError as error:
        return "gone" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return "no file any more"
    stem, extension = os.path.splitext(os.path.basename(source))
    for target in (folder / f"{stem}{extension}", folder / _with_id(stem, extension, row)):
        if target in taken:
            continue
        if os.path.lexists(target):
            if not _is_there(target, source, row, link):
                continue
            report.skipped += 1
            reason = None
        else:
            reason = _put(source, facts, target, link, row)
        taken.add(target)
        return reason
    return f"something else is at {uri_of(target)}"


def _with_id(stem: str, extension: str, row: dict[str, Any]) -> str:
    end = f"-{row['image_id']}{extension}"
    while len(os.fsencode(stem + end)) > 255:
        stem = stem[:-1]
    return stem + end


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
    looks = (row["size_bytes"], row["mtime_ns"])
    if link != "copy" and looks != (facts.st_size, facts.st_mtime_ns):
        return _CHANGED
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if link == "symbolic":
            target.symlink_to(source)
        elif link == "hard":
            _link(source, target)
        else:
            return _copy(source, facts, target, row)
    return None


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise ExportError(
                f"hard links cannot lead from {source} to another disk: export copies or "
                "symbolic links"
            ) from error
        raise


def _copy(source: str, facts: os.stat_result, target: Path, row: dict[str, Any]) -> str | None:
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if content_hash(data) != row["content_hash"]:
        return _CHANGED
    part = target.with_name(f".{row['image_id']}.part")
    try:
        part.write_bytes(data)
        part.chmod(stat.S_IMODE(facts.st_mode))
        os.utime(part, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        part.rename(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return None
