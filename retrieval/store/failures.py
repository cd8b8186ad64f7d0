"""What could not be brought in: one row a uri, written only when it says something new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval.errors import CollectionError
from retrieval.store import schema
from retrieval.store.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

_FACTS = ("stage", "kind", "reason", "size_bytes", "mtime_ns")


def read(table: Table) -> pa.Table:
    """All failures, as of now."""
    table.refresh()
    with table.reading() as dataset:
        return dataset.to_table()


def record(table: Table, rows: pa.Table) -> None:
    """Write those of ``rows`` that are not known with the same facts."""
    rows = _conform(rows)
    known = {row["uri"]: row for row in read(table).to_pylist()}
    fresh = [
        row["uri"] not in known or any(known[row["uri"]][fact] != row[fact] for fact in _FACTS)
        for row in rows.to_pylist()
    ]
    if any(fresh):
        table.upsert(rows.filter(fresh), "uri")


def clear(table: Table, uris: Sequence[str]) -> int:
    """Delete the failures of ``uris``; how many there were."""
    import pyarrow as pa

    gone = sorted(set(read(table)["uri"].to_pylist()).intersection(uris))
    if not gone:
        return 0
    keys = pa.table([pa.array(gone)], schema=pa.schema([schema.failures().field("uri")]))
    return table.delete(keys, "uri")


def _conform(rows: pa.Table) -> pa.Table:
    """``rows`` with all columns of ``failures``; the last of several rows of one uri stays.

    Raises:
        CollectionError: for a column that is unknown, missing or of the wrong type.
    """
    import pyarrow as pa

    wanted = schema.failures()
    if unknown := set(rows.column_names) - set(wanted.names):
        raise CollectionError(f"no column {min(unknown)!r} in failures")
    by_uri = {row["uri"]: row for row in rows.to_pylist() if row.get("uri") is not None}
    try:
        return pa.Table.from_pylist(list(by_uri.values()), schema=wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CollectionError(f"failures do not fit their columns: {error}") from error
