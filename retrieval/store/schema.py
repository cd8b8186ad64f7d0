"""Arrow schemas of the tables, and the check that rows fit them before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import CollectionError
from retrieval.types import Space

if TYPE_CHECKING:
    import pyarrow as pa

VECTOR_PREFIX = "vector_"
EMBEDDED_PREFIX = "embedded_"
"""A bool column beside every vector column: asking a vector column what is null in it would read
every vector."""

_FORBIDDEN = re.compile('[.`"\\\\\x00-\x1f]')
_USER_TYPES = "bool, int64, double, string, timestamp[us]"


def images() -> pa.Schema:
    """Columns of ``images`` before any space or user column is added."""
    import pyarrow as pa

    return pa.schema(
        [
            _key("image_id", pa.int64()),
            pa.field("uri", pa.string(), nullable=False),
            ("content_hash", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("format", pa.string()),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("captured_at", pa.timestamp("us")),
            ("label", pa.string()),
            ("split", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("metadata", pa.json_()),
            ("thumbnail", pa.large_binary()),
            ("ingested_at", pa.timestamp("us", "UTC")),
        ]
    )


def failures() -> pa.Schema:
    """Columns of ``failures``: one row a uri that could not be brought in."""
    import pyarrow as pa

    return pa.schema(
        [
            _key("uri", pa.string()),
            ("stage", pa.string()),
            ("kind", pa.string()),
            ("reason", pa.string()),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("failed_at", pa.timestamp("us", "UTC")),
        ]
    )


def manifest() -> pa.Schema:
    """Columns of ``manifest``: JSON values by key."""
    import pyarrow as pa

    return pa.schema([_key("key", pa.string()), pa.field("value", pa.string(), nullable=False)])


def vector_column(space: str) -> str:
    """Column of ``images`` that holds the vectors of ``space``."""
    return VECTOR_PREFIX + re.sub(r"\W", "_", space)


def embedded_column(space: str) -> str:
    """Column of ``images`` that says whether a row has a vector in ``space``."""
    return EMBEDDED_PREFIX + re.sub(r"\W", "_", space)


def space_fields(space: Space) -> pa.Schema:
    """The two columns that a space adds to ``images``."""
    import pyarrow as pa

    value = pa.float16() if space.dtype == "float16" else pa.float32()
    return pa.schema(
        [
            (vector_column(space.name), pa.list_(value, space.dim)),
            (embedded_column(space.name), pa.bool_()),
        ]
    )


def check_columns(
    columns: Mapping[str, pa.DataType], existing: pa.Schema | None = None
) -> pa.Schema:
    """The fields that metadata ``columns`` become; whole numbers widen where fractions are stored.

    Args:
        columns: types by name.
        existing: columns of the collection; None for a new one.

    Raises:
        CollectionError: as for :meth:`Store.add_columns`; nothing is written.
    """
    import pyarrow as pa

    there = images() if existing is None else existing
    fields = []
    for name, kind in columns.items():
        widen = (
            kind == pa.int64() and name in there.names and there.field(name).type == pa.float64()
        )
        fields.append(pa.field(name, pa.float64() if widen else kind))
    check_user_fields(pa.schema(fields), there)
    return pa.schema(fields)


def check_user_fields(fields: pa.Schema, existing: pa.Schema) -> pa.Schema:
    """The fields of ``fields`` that ``existing`` lacks.

    Raises:
        CollectionError: for a name that cannot be a column or belongs to the system, a type that
            no user column has, or a column that is there with another type.
    """
    import pyarrow as pa

    allowed = {pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.timestamp("us")}
    system = set(images().names)
    new = []
    for field in fields:
        name = field.name
        if name in system or name.startswith((VECTOR_PREFIX, EMBEDDED_PREFIX)):
            raise CollectionError(
                f"column {name!r} ({field.type}) clashes with a system column of that name; "
                "give it another name"
            )
        if name.startswith("_"):
            raise CollectionError(
                f"column {name!r} cannot begin with '_', as the engine's own columns do; "
                "give it another name"
            )
        if not name.strip() or _FORBIDDEN.search(name):
            raise CollectionError(
                f"{name!r} cannot be a column name: it is empty or holds a dot, a quote, "
                "a backslash or a control character"
            )
        if field.type not in allowed:
            raise CollectionError(
                f"column {name!r} has type {field.type}, not one of {_USER_TYPES}"
            )
        if name not in existing.names:
            new.append(field.with_nullable(True))
        elif existing.field(name).type != field.type:
            raise CollectionError(
                f"column {name!r} holds {existing.field(name).type} in this collection; "
                f"it cannot take {field.type}; rename the new one, or make its values fit"
            )
    return pa.schema(new)


def conform(rows: pa.Table, schema: pa.Schema, spaces: Iterable[Space], *, whole: bool) -> pa.Table:
    """``rows`` cast to ``schema``, checked, with the ``embedded_*`` columns filled in.

    Args:
        rows: columns in any order; ``image_id`` must be among them and unique.
        schema: schema of ``images``.
        spaces: all spaces of the collection.
        whole: add the columns that ``rows`` lacks as null; otherwise only those given come back.

    Raises:
        CollectionError: naming the column or space that does not fit.
    """
    import pyarrow as pa

    unknown = [name for name in rows.column_names if name not in schema.names]
    if unknown:
        raise CollectionError(
            f"no column {unknown[0]!r} in images; it has {', '.join(schema.names)}"
        )
    for space in spaces:
        if vector_column(space.name) in rows.column_names:
            rows = _with_vectors(rows, space)
    names = [n for n in schema.names if whole or n in rows.column_names]
    columns = [_column(rows, schema.field(name)) for name in names]
    table = pa.table(columns, schema=pa.schema([schema.field(n) for n in names]))
    ids = table.column("image_id").to_numpy()
    if len(ids) and ids.min() < 0:
        raise CollectionError(f"an image_id is 0 or more, not {ids.min()}")
    if len(np.unique(ids)) != len(ids):
        raise CollectionError("an image_id occurs twice among the rows to write")
    return table


def _key(name: str, kind: pa.DataType) -> pa.Field:
    """A primary key: concurrent inserts of one key conflict and are merged, not doubled."""
    import pyarrow as pa

    return pa.field(
        name, kind, nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}
    )


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa

    if field.name not in rows.column_names:
        if not field.nullable:
            raise CollectionError(f"rows lack the column {field.name!r}")
        return pa.nulls(len(rows), field.type)
    column = rows.column(field.name)
    if column.null_count and not field.nullable:
        raise CollectionError(f"column {field.name!r} must not be null")
    if isinstance(field.type, pa.JsonType):
        return _json_column(column, field.type)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CollectionError(
            f"column {field.name!r} does not fit {field.type}: {error}"
        ) from error


def _json_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    texts = [None if text is None else _json_text(text) for text in column.to_pylist()]
    return pa.ExtensionArray.from_storage(kind, pa.array(texts, pa.string()))


def _json_text(text: str) -> str:
    """``text`` written anew, since the engine refuses a key that occurs twice."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CollectionError(f"metadata is not JSON: {str(text)[:80]!r}") from error
    if not isinstance(value, dict):
        raise CollectionError(f"metadata must be a JSON object, not {text[:80]!r}")
    return json.dumps(value)


def _with_vectors(rows: pa.Table, space: Space) -> pa.Table:
    """Check and cast the vectors of ``space``, and say which rows have one."""
    import pyarrow as pa

    wanted, flag = space_fields(space)
    column = rows.column(wanted.name)
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != space.dim:
        raise CollectionError(f"space {space.name!r} has dim {space.dim}, not {kind.list_size}")
    try:
        column = column.cast(wanted.type).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CollectionError(
            f"vectors of space {space.name!r} must be {space.dim} × {space.dtype}: {error}"
        ) from error
    present = column.drop_null()
    if present.flatten().null_count or not np.isfinite(present.flatten().to_numpy()).all():
        raise CollectionError(f"a vector of space {space.name!r} is not finite")
    rows = rows.set_column(rows.schema.get_field_index(wanted.name), wanted, column)
    if flag.name in rows.column_names:
        rows = rows.drop_columns([flag.name])
    return rows.append_column(flag, column.is_valid())
