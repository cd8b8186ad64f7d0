"""Rows as records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retrieval.store import schema
from retrieval.types import ImageRecord

if TYPE_CHECKING:
    import pyarrow as pa

_FIELDS = (
    "image_id", "uri", "content_hash", "width", "height", "format", "size_bytes",
    "captured_at", "label", "split", "tags", "metadata",
)  # fmt: skip
_UNKNOWN = {"content_hash": "", "format": "", "width": 0, "height": 0, "size_bytes": 0}


def user_columns(columns: pa.Schema) -> list[str]:
    """Names of the columns that a person added."""
    system = set(schema.images().names)
    prefixes = (schema.VECTOR_PREFIX, schema.EMBEDDED_PREFIX)
    return [n for n in columns.names if n not in system and not n.startswith(prefixes)]


def columns(all_columns: pa.Schema) -> list[str]:
    """Columns that a record needs."""
    return [*_FIELDS, *user_columns(all_columns)]


def from_rows(rows: pa.Table) -> list[ImageRecord]:
    """One record a row of the columns of :func:`columns`."""
    return [_record(row) for row in rows.to_pylist()]


def _record(row: dict[str, Any]) -> ImageRecord:
    fields = {name: row.pop(name) for name in _FIELDS}
    for name, stand_in in _UNKNOWN.items():
        if fields[name] is None:
            fields[name] = stand_in
    metadata = json.loads(fields["metadata"]) if fields["metadata"] else {}
    metadata.update((name, value) for name, value in row.items() if value is not None)
    return ImageRecord(**{**fields, "tags": tuple(fields["tags"] or ()), "metadata": metadata})
