"""One row an image: Parquet and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.query.export.report import whole_file
from retrieval.query.export.selection import Selection
from retrieval.vectors.tiles import Tell

if TYPE_CHECKING:
    import pyarrow as pa


def write_parquet(chosen: Selection, out: Path, spaces: Sequence[str], tell: Tell | None) -> None:
    """All columns of the records, and the vectors of ``spaces`` as ``vector_NAME``.

    The schema's metadata are the facts of ``chosen``.

    Raises:
        UnknownSpace: if there is no such space.
        ExportError: if the file cannot be written.
    """
    import pyarrow.parquet as pq

    columns = chosen.columns() + [chosen.store.vector_column(space) for space in spaces]
    with whole_file(out) as path:
        writer = None
        try:
            for block in chosen.blocks(columns, tell):
                rows = block.replace_schema_metadata(chosen.facts)
                writer = writer or pq.ParquetWriter(path, rows.schema)
                writer.write_table(rows)
        finally:
            if writer is not None:
                writer.close()


def write_csv(chosen: Selection, out: Path, tell: Tell | None) -> None:
    """All columns of the records, UTF-8: tags separated by ``;``, metadata as JSON text.

    A tag with a ``;`` in it reads back as two: Parquet keeps tags apart.
    A value that is missing is an empty cell without quotes. Cells are written as they are: one that
    begins with ``=``, ``+``, ``-`` or ``@`` may be run as a formula by a spreadsheet.

    Raises:
        ExportError: if the file cannot be written.
    """
    import pyarrow.csv as pc

    with whole_file(out) as path:
        writer = None
        try:
            for block in chosen.blocks(chosen.columns(), tell):
                rows = _flat(block)
                writer = writer or pc.CSVWriter(path, rows.schema)
                writer.write_table(rows)
        finally:
            if writer is not None:
                writer.close()


def _flat(rows: pa.Table) -> pa.Table:
    """``rows`` with the one column of lists as text."""
    import pyarrow.compute as pc

    at = rows.column_names.index("tags")
    return rows.set_column(at, "tags", pc.binary_join(rows["tags"], ";"))
