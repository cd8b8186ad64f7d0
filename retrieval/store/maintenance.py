"""Keeping a collection fast and small, and forgetting what was deleted for good."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from retrieval.store import uris
from retrieval.store.table import Busy, Table

INDEXED = ("image_id", "uri", "content_hash", "label", "split")
MIN_INDEXED_ROWS = 10_000
"""Below this, scanning a column takes about as long as asking its index."""
FRAGMENT_ROWS = 131_072
"""Fragments of this size are never written again for a few new rows."""
MAX_SMALL_FRAGMENTS = 8
MAX_DELETED_SHARE = 0.1
_KEEP_VERSIONS = timedelta(days=1)
"""Readers that were opened before keep what they read for at least so long."""


def optimize(images: Table) -> None:
    """Compact fragments and bring scalar indexes up to date; nothing where nothing is due.

    While others write it may lose every race; then it is left to the next run.
    """

    def run(dataset: Any) -> None:
        if _wants_compaction(dataset):
            dataset.optimize.compact_files(
                target_rows_per_fragment=FRAGMENT_ROWS,
                materialize_deletions_threshold=MAX_DELETED_SHARE,
            )
            dataset.cleanup_old_versions(older_than=_KEEP_VERSIONS)
        _index(dataset)

    with suppress(Busy):
        images.commit(run)


def _wants_compaction(dataset: Any) -> bool:
    fragments = [fragment.metadata for fragment in dataset.get_fragments()]
    small = sum(fragment.num_rows < FRAGMENT_ROWS for fragment in fragments)
    return small > MAX_SMALL_FRAGMENTS or any(
        fragment.num_deletions > MAX_DELETED_SHARE * fragment.physical_rows
        for fragment in fragments
    )


def _index(dataset: Any) -> None:
    """Make the indexes that are missing, and take new rows into those that are there."""
    indexed = {index.field_names[0]: index.name for index in dataset.describe_indices()}
    if dataset.count_rows() >= MIN_INDEXED_ROWS:
        for column in INDEXED:
            if column not in indexed:
                dataset.create_scalar_index(column, "BTREE")
    stale = [
        name for name in indexed.values() if dataset.stats.index_stats(name)["num_unindexed_rows"]
    ]
    if stale:
        dataset.optimize.optimize_indices(index_names=stale)


def purge(table: Table) -> None:
    """Leave nothing of deleted or replaced rows: rewrite what holds them, drop old versions.

    Indexes are made anew, since they hold the values they were made from. Another process that
    writes meanwhile may lose its write (with an error), as unfinished files go too.
    """

    def run(dataset: Any) -> None:
        indexes = {index.name: index.field_names[0] for index in dataset.describe_indices()}
        for name in indexes:
            dataset.drop_index(name)
        dataset.optimize.compact_files(
            target_rows_per_fragment=FRAGMENT_ROWS, materialize_deletions_threshold=0.0
        )
        for column in indexes.values():
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
