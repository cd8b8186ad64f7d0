"""Whole columns set in one commit that leaves every row as new as it was.

A column of values about all images is no change of the images: indexes tell by the version at which
a row changed last whether they are behind, and the engine's own ways to write a column
(``add_columns``, ``merge``, ``merge_insert``, ``DataReplacement``) move it for every row. An
``Update`` of fragments that are given as they were, but for one more file, does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from retrieval.store.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

_GONE = -2  # how the format marks a column of a file that another file holds now
_OFFSET = (1 << 32) - 1  # the part of a row's address that is its place in the fragment


def replace_columns(table: Table, rows: pa.Table, key: str) -> int:
    """Set columns of every row: to the value in ``rows``, to null where there is none.

    Columns that are missing are added, null, before. Where another process writes meanwhile, both
    are kept: rows that it adds have null, and what it changes is read again.

    Args:
        table: to write to.
        rows: ``key``, unique and not null, and the columns; of whole columns in the table's types.
        key: int64 column that names a row.

    Returns:
        The version that has them.

    Raises:
        CollectionError: if the write fails or loses against other writers too often; the columns
            hold then what they held.
    """
    import lance
    import pyarrow as pa

    names = [name for name in rows.column_names if name != key]
    table.add_columns(pa.schema([rows.schema.field(name) for name in names]))
    order = np.argsort(rows[key].to_numpy())
    known, values = rows[key].to_numpy()[order], rows.select(names).take(order).combine_chunks()

    def run(dataset: Any) -> int:
        ids = {field.name(): field.id() for field in dataset.lance_schema.fields()}
        fields = [ids[name] for name in names]
        fragments = [
            _with_file(dataset, fragment, fields, _in_order(fragment, known, values, key), table)
            for fragment in dataset.get_fragments()
        ]
        if not fragments:
            return int(dataset.version)
        # Not "rewrite_columns": that would say that all rows changed.
        update = lance.LanceOperation.Update(
            updated_fragments=fragments, fields_modified=fields, update_mode="rewrite_rows"
        )
        return int(
            lance.LanceDataset.commit(
                dataset.uri,
                update,
                read_version=dataset.version,
                storage_options=table.storage_options,
            ).version
        )

    version = table.commit(run)
    table.refresh()
    return version


def _in_order(fragment: Any, known: Any, values: pa.Table, key: str) -> pa.Table:
    """``values`` in the order of a fragment's rows, the deleted ones too."""
    import pyarrow as pa

    alive = fragment.to_table(columns=[key], with_row_address=True)
    here = alive[key].to_numpy()
    at = np.minimum(np.searchsorted(known, here), max(0, len(known) - 1))
    found = known[at] == here if len(known) else np.zeros(len(here), bool)
    place = (alive["_rowaddr"].to_numpy() & _OFFSET).astype(np.int64)
    wanted = np.full(fragment.physical_rows, -1, dtype=np.int64)
    wanted[place[found]] = at[found]
    return values.take(pa.array(wanted, mask=wanted < 0))


def _with_file(
    dataset: Any, fragment: Any, fields: Sequence[int], values: pa.Table, table: Table
) -> Any:
    """A fragment whose ``fields`` are read from a new file of ``values``."""
    from lance.file import LanceFileWriter
    from lance.fragment import DataFile

    name = f"{uuid4().hex}.lance"
    version = dataset.data_storage_version
    writer = LanceFileWriter(
        f"{dataset.uri}/data/{name}",
        values.schema,
        version=version,
        storage_options=table.storage_options,
    )
    with writer:
        for batch in values.to_batches():
            writer.write_batch(batch)
    old = fragment.metadata
    files = []
    for file in old.files:
        left = [_GONE if number in fields else number for number in file.fields]
        if left == file.fields:
            files.append(file)
        elif any(number >= 0 for number in left):
            files.append(
                DataFile(
                    file.path,
                    left,
                    file.column_indices,
                    file.file_major_version,
                    file.file_minor_version,
                    file.file_size_bytes,
                    file.base_id,
                )
            )
    major, minor = (int(part) for part in version.split("."))
    columns = list(range(len(fields)))
    files.append(DataFile(name, list(fields), columns, major, minor, writer.size_bytes))
    return replace(old, files=files)
