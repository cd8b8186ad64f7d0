"""Keeping a collection fast and small, and forgetting what was deleted for good."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from retrieval.store import uris
from retrieval.store.table import Table

INDEXED = ("image_id", "uri", "content_hash", "label", "split")
MIN_INDEXED_ROWS = 10_000
"""Below this, scanning a column takes about as long as asking its index."""


def optimize(images: Table) -> None:
    """Compact fragments and bring scalar indexes up to date; nothing where nothing is due."""

    def run(dataset: Any) -> None:
        dataset.optimize.compact_files()
        indexed = {tuple(index.field_names): index for index in dataset.describe_indices()}
        rows = dataset.count_rows()
        for column in INDEXED:
            if (column,) not in indexed and rows >= MIN_INDEXED_ROWS:
                dataset.create_scalar_index(column, "BTREE")
        stale = [
            index.name
            for index in indexed.values()
            if dataset.stats.index_stats(index.name)["num_unindexed_rows"]
        ]
        if stale:
            dataset.optimize.optimize_indices(index_names=stale)

    images.commit(run)


def purge(table: Table) -> None:
    """Leave nothing of deleted or replaced rows: rewrite what holds them, drop old versions.

    Indexes are made anew, since they hold the values they were made from. Another process that
    writes meanwhile may lose its write (with an error), as unfinished files go too.
    """

    def run(dataset: Any) -> None:
        indexed = [tuple(index.field_names) for index in dataset.describe_indices()]
        for index in dataset.describe_indices():
            dataset.drop_index(index.name)
        _rewrite(dataset)
        for (column,) in indexed:
            dataset.create_scalar_index(column, "BTREE")

    table.commit(run)
    table.commit(
        lambda dataset: dataset.cleanup_old_versions(
            older_than=timedelta(0), retain_versions=1, delete_unverified=True
        )
    )


def stats(uri: str, tables: Mapping[str, Table]) -> dict[str, Any]:
    """Rows, fragments, versions and indexes by table; bytes on disk where the disk is local."""
    found: dict[str, Any] = {"uri": uri, "size_bytes": _size(uri), "tables": {}}
    for name, table in tables.items():
        dataset = table.snapshot
        found["tables"][name] = {
            "rows": dataset.count_rows(),
            "version": table.version,
            "versions": len(dataset.versions()),
            "fragments": len(dataset.get_fragments()),
            "indexes": {
                index.field_names[0]: {"type": index.index_type, "rows": index.num_rows_indexed}
                for index in dataset.describe_indices()
            },
        }
    return found


def _rewrite(dataset: Any) -> None:
    """Write every fragment anew that holds a deleted row or a replaced column."""
    dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)


def _size(uri: str) -> int | None:
    if uris.is_remote(uri):
        return None
    total = 0
    for folder, _, files in os.walk(uri):
        for name in files:
            try:
                total += os.path.getsize(os.path.join(folder, name))
            except FileNotFoundError:  # a concurrent cleanup removed it
                continue
    return total
