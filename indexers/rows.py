"""Rows as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from indexers.prepare import Failed
from retrieval.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


def image_table(rows: Sequence[dict[str, Any]], store: Store) -> pa.Table:
    """Rows as one table; the store casts it to its own types. What a row lacks is null.

    ``vectors`` of a row is a mapping from space to ``[dim]``; every other key is a column.
    """
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row if name != "vectors")
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    for space in rows[0].get("vectors", ()):
        matrix = np.stack([row["vectors"][space] for row in rows]).astype(np.float32)
        columns[store.vector_column(space)] = pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.ravel()), matrix.shape[1]
        )
    return pa.table(columns)


def failure_table(failures: Sequence[Failed]) -> pa.Table:
    """Failures as rows of the failures table."""
    import pyarrow as pa

    return pa.table(
        {
            "uri": [failed.file.uri for failed in failures],
            "stage": [failed.stage for failed in failures],
            "kind": [failed.kind for failed in failures],
            "reason": [failed.reason for failed in failures],
            "size_bytes": pa.array([f.file.size_bytes for f in failures], pa.int64()),
            "mtime_ns": pa.array([f.file.mtime_ns for f in failures], pa.int64()),
            "failed_at": pa.array(
                [datetime.now(UTC)] * len(failures), pa.timestamp("us", tz="UTC")
            ),
        }
    )
