"""What lies among pictures and is no picture of a person's: what this program wrote itself."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.query.export.mark import MARK

JOURNAL = "journal.jsonl"
_QUARANTINE = ".quarantine"


def quarantine_of(plan: Path) -> Path:
    """Folder beside a plan that holds what it took away."""
    return plan.with_name(f"{plan.name}{_QUARANTINE}")


def is_quarantine(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds what a plan took away."""
    named = os.fspath(folder).endswith(_QUARANTINE)
    return named and os.path.isfile(os.path.join(folder, JOURNAL))


def is_ours(folder: str) -> bool:
    """Whether a folder is a table of a collection, a plan's quarantine, or an export."""
    table = folder.endswith(".lance") and os.path.isdir(os.path.join(folder, "_versions"))
    return table or is_quarantine(folder) or os.path.isfile(os.path.join(folder, MARK))


def is_unfinished(name: str) -> bool:
    """Whether a file's name says that it is on its way and not whole."""
    return name.startswith(".") and name.endswith(".part")
