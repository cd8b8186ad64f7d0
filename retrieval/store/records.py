"""Rows as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from retrieval.store import schema
from retrieval.types import ImageRecord

if TYPE_CHECKING:
    import pyarrow as pa

_FIELDS = (
    "image_id", "uri", "content_hash", "width", "height", "format", "size_bytes",
    "captured_at", "label", "split", "tags", "metadata",
)  # fmt: skip
_KNOWN = ("image_id", "uri", "content_hash", "size_bytes", "mtime_ns")


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
    names = rows.column_names[len(_FIELDS) :]
    columns = [column.to_pylist() for column in rows.columns]
    return [record(values, names) for values in zip(*columns, strict=True)]


def record(values: Sequence[Any], user_columns: Sequence[str]) -> ImageRecord:
    """The record of one row.

    Args:
        values: of the columns of :func:`columns`, as Python has them.
        user_columns: names of those that a person added: the last ones.
    """
    (
        image_id, uri, content_hash, width, height, form, size_bytes,
        captured_at, label, split, tags, text, *added,
    ) = values  # fmt: skip
    metadata = json.loads(text) if text else {}
    for name, value in zip(user_columns, added, strict=True):
        if value is not None:
            metadata[name] = value
    return ImageRecord(
        image_id, uri, content_hash or "", width or 0, height or 0, form or "", size_bytes or 0,
        captured_at, label, split, tuple(tags or ()), metadata,
    )  # fmt: skip


def known(dataset: Any, spaces: Iterable[str]) -> pa.Table:
    """What an ingestion compares with; see :meth:`Store.known`."""
    import pyarrow.compute as pc

    flags = {name: schema.embedded_column(name) for name in spaces}
    rows = dataset.to_table(columns=[*_KNOWN, *flags.values()])
    for name, column in flags.items():
        rows = rows.append_column(f"embedded:{name}", pc.fill_null(rows[column], False))
    return rows.drop_columns(list(flags.values()))
