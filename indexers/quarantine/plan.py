"""The file that says what would go and why, and what came of carrying it out."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexers.marks import JOURNAL, quarantine_of
from retrieval.errors import PlanError
from retrieval.folders import whole_file

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class QuarantineReport:
    """What one call did.

    Attributes:
        moved: files that went to quarantine.
        restored: files that came back.
        refused: what was left alone or not put back: its uri and why.
        bytes: size of the files that moved, in either direction.
        quarantine: the folder that the plan moves files to.
    """

    moved: int = 0
    restored: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    bytes: int = 0
    quarantine: str = ""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        refused = [{"uri": uri, "reason": reason} for uri, reason in self.refused]
        return {
            "moved": self.moved,
            "restored": self.restored,
            "refused": refused,
            "bytes": self.bytes,
            "quarantine": self.quarantine,
        }


def plan_schema() -> pa.Schema:
    """Columns of a plan: one row an image that would go, and the one that is kept for it.

    Every row says by itself which collection it is of, so that any tool may take rows out.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("image_id", pa.int64(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64()),
            pa.field("keep_id", pa.int64(), nullable=False),
            pa.field("keep_uri", pa.string(), nullable=False),
            pa.field("keep_hash", pa.string(), nullable=False),
            ("kind", pa.string()),
            ("score", pa.float32()),
            ("why", pa.string()),
            pa.field("collection", pa.string(), nullable=False),
            pa.field("collection_id", pa.string(), nullable=False),
        ]
    )


def write_plan(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a removal plan as Parquet, in one move; an older one that was not applied is replaced.

    Args:
        table: the columns of :func:`plan_schema`; its metadata are kept.
        path: of the file.

    Raises:
        PlanError: if the table is no plan, or there is something else at ``path`` than a plan that
            was not applied.
        OSError: if it cannot be written; nothing is left then.
    """
    import pyarrow.parquet as pq

    checked = _checked(table, os.fspath(path))
    check_place(path)
    with whole_file(Path(path)) as beside:
        pq.write_table(checked, beside)


def check_place(path: str | os.PathLike[str]) -> None:
    """See that a plan may be written at ``path``.

    Raises:
        PlanError: as :func:`write_plan`.
    """
    place = Path(path)
    if (quarantine_of(place) / JOURNAL).exists():
        raise PlanError(f"{place} was applied: undo it first, or write the new plan elsewhere")
    if os.path.lexists(place):
        try:
            read_plan(place)
        except PlanError as error:
            raise PlanError(f"{error}; choose a name that is free") from error


def read_plan(path: Path) -> tuple[pa.Table, str]:
    """The rows of a plan, and the digest by which it is known again.

    Raises:
        PlanError: if there is none, or the file is no plan.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        table = pq.read_table(pa.BufferReader(data))
    except FileNotFoundError as error:
        raise PlanError(f"there is no plan {path}: dedup --plan FILE writes one") from error
    except (OSError, pa.ArrowException) as error:
        raise PlanError(f"{path} is no plan: {error}") from error
    return _checked(table, str(path)), hashlib.blake2b(data, digest_size=16).hexdigest()


def _checked(table: pa.Table, place: str) -> pa.Table:
    import pyarrow as pa

    schema = plan_schema().with_metadata(table.schema.metadata)
    lacking = [name for name in schema.names if name not in table.column_names]
    if lacking:
        raise PlanError(f"{place} is no plan: it lacks {lacking[0]!r}")
    try:
        plan = table.select(schema.names).cast(schema)
        plan.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise PlanError(f"{place} is no plan: {error}") from error
    going = plan["image_id"].to_pylist()
    if len(set(going)) != len(going):
        raise PlanError(f"{place} is no plan: an image stands in it twice")
    if both := set(going) & set(plan["keep_id"].to_pylist()):
        raise PlanError(f"{place} is no plan: image {min(both)} would be kept and go")
    return plan
