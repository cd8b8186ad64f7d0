"""Vectors out of the table of images: all of a space, those that changed, those of some rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.store.table import Table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Some rows of the table, read-only.

    Attributes:
        ids: int64 ``[m]``, of the images.
        present: bool ``[m]``, which of them have a vector.
        vectors: ``[present.sum(), dim]`` in the space's dtype, unit rows.
    """

    ids: NDArray[np.int64]
    present: NDArray[np.bool_]
    vectors: NDArray[Any]


def scan(
    table: Table, column: str, dim: int, block_rows: int, *, since: int = 0
) -> Iterator[VectorBlock]:
    """The rows of the version that ``table`` reads now, in no order.

    Args:
        table: of images.
        column: with the vectors.
        dim: of the vectors.
        block_rows: most rows of a block.
        since: only rows that were inserted or changed in any column after this version.

    Raises:
        CollectionError: if the version's files are gone.
    """
    where = changed_since(since) if since else None
    for batch in table.batches(["image_id", column], block_rows, where):
        yield _block(batch, column, dim)


def changed_since(version: int) -> str:
    """The engine's filter for rows that were inserted or changed in any column after a version."""
    return f"_row_last_updated_at_version > {version}"


def matrix(column: pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    """float32 ``[n, dim]``: a column of vectors without nulls."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, dtype=np.float32).reshape(len(column), dim)


def _block(batch: Any, column: str, dim: int) -> VectorBlock:
    ids, vectors = batch.column("image_id"), batch.column(column)
    present = np.ones(len(ids), dtype=bool)
    if vectors.null_count:
        present = vectors.is_valid().to_numpy(zero_copy_only=False)
        vectors = vectors.drop_null()
    flat = vectors.flatten().to_numpy()
    return VectorBlock(ids.to_numpy(), present, flat.reshape(-1, dim))
