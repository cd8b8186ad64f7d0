"""The file that says what would go and why, and what came of carrying it out."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval import folders
from retrieval.errors import PlanError

if TYPE_CHECKING:
    import pyarrow as pa

PLAN_FACTS = ("collection", "collection_id", "space", "threshold", "version")
"""What the metadata of a plan's schema say: where it came from."""
JOURNAL = "journal.jsonl"
_FOLDER = ".quarantine"


@dataclass(slots=True)
class QuarantineReport:
    """What one call did.

    Attributes:
        moved: files that went to quarantine.
        restored: files that came back.
        refused: what was left alone or not put back: its uri and why.
        bytes: size of the files that moved, in either direction.
    """

    moved: int = 0
    restored: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        refused = [{"uri": uri, "reason": reason} for uri, reason in self.refused]
        return {
            "moved": self.moved,
            "restored": self.restored,
            "refused": refused,
            "bytes": self.bytes,
        }


def plan_schema() -> pa.Schema:
    """Columns of a plan: one row an image that would go, and the one that is kept for it."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("image_id", pa.int64(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64()),
            pa.field("keep_id", pa.int64(), nullable=False),
            pa.field("keep_uri", pa.string(), nullable=False),
            ("kind", pa.string()),
            ("score", pa.float32()),
            ("why", pa.string()),
        ]
    )


def write_plan(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a removal plan as Parquet, in one move; an older one that was not applied is replaced.

    Args:
        table: the columns of :func:`plan_schema`, its metadata those of :data:`PLAN_FACTS`.
        path: of the file.

    Raises:
        PlanError: if the table is no plan, or the plan at ``path`` was applied and not undone.
        OSError: if it cannot be written; nothing is left then.
    """
    import pyarrow.parquet as pq

    checked, place = _checked(table, os.fspath(path)), Path(path)
    if (quarantine_of(place) / JOURNAL).exists():
        raise PlanError(f"{place} was applied: undo it first, or write the new plan elsewhere")
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        pq.write_table(checked, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def read_plan(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """The rows of a plan, and the facts of its metadata.

    Raises:
        PlanError: if there is none, or the file is no plan.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise PlanError(f"there is no plan {path}: dedup --plan FILE writes one") from error
    except (OSError, pa.ArrowException) as error:
        raise PlanError(f"{path} is no plan: {error}") from error
    checked = _checked(table, str(path))
    return checked, {name: checked.schema.metadata[name.encode()].decode() for name in PLAN_FACTS}


def plan_digest(path: Path) -> str:
    """By which a plan is known again."""
    return folders.digest(path)


def quarantine_of(path: Path) -> Path:
    """Folder beside a plan that holds what it took away."""
    return path.with_name(f"{path.name}{_FOLDER}")


def is_quarantine(folder: str) -> bool:
    """Whether a folder holds what a plan took away."""
    return folder.endswith(_FOLDER) and os.path.isfile(os.path.join(folder, JOURNAL))


def _checked(table: pa.Table, place: str) -> pa.Table:
    import pyarrow as pa

    schema, said = plan_schema(), table.schema.metadata or {}
    lacking = [name for name in schema.names if name not in table.column_names]
    lacking += [name for name in PLAN_FACTS if name.encode() not in said]
    if lacking:
        raise PlanError(f"{place} is no plan: it lacks {lacking[0]!r}")
    kept = {name.encode(): said[name.encode()] for name in PLAN_FACTS}
    try:
        plan = table.select(schema.names).cast(schema.with_metadata(kept))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise PlanError(f"{place} is no plan: {error}") from error
    plan.validate(full=True)
    going = plan["image_id"].to_pylist()
    if len(set(going)) != len(going):
        raise PlanError(f"{place} is no plan: an image stands in it twice")
    if both := set(going) & set(plan["keep_id"].to_pylist()):
        raise PlanError(f"{place} is no plan: image {min(both)} would be kept and go")
    return plan
