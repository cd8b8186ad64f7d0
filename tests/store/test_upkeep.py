"""Failures, migrations, compaction, and forgetting for good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import CollectionError, SchemaError
from retrieval.store import Store, maintenance, migrations


def failure(uri: str, reason: str = "cut short") -> dict:
    facts = {"stage": "decode", "kind": "truncated", "size_bytes": 10, "mtime_ns": 5}
    return {"uri": uri, "reason": reason} | facts


def test_failures_are_kept_by_uri_and_not_rewritten(store: Store):
    store.record_failures(pa.Table.from_pylist([failure("/a"), failure("/b"), failure("/b")]))
    version = store.stats()["tables"]["failures"]["version"]
    store.record_failures(pa.Table.from_pylist([failure("/b")]))
    assert store.stats()["tables"]["failures"]["version"] == version
    store.record_failures(pa.Table.from_pylist([failure("/b", "zero bytes")]))
    found = {row["uri"]: row["reason"] for row in Store.open(store.uri).failures().to_pylist()}
    assert found == {"/a": "cut short", "/b": "zero bytes"}
    assert store.clear_failures(["/a", "/nope"]) == 1
    assert store.clear_failures(["/a"]) == 0
    assert store.failures()["uri"].to_pylist() == ["/b"]
    with pytest.raises(CollectionError, match="strange"):
        store.record_failures(pa.table({"uri": ["/c"], "strange": [1]}))


def test_a_newer_collection_is_refused_with_the_way_out(store: Store):
    store._tables.manifest.set_schema_version(migrations.current_version() + 1)
    with pytest.raises(SchemaError, match="upgrade"):
        Store.open(store.uri)


def test_an_older_collection_is_migrated_once(store: Store, rows, monkeypatch):
    store.upsert(rows([1, 2]))
    runs = []

    def add_rating(images, failures):
        runs.append(images.snapshot.version)
        images.add_columns(pa.schema([("rating", pa.int64())]))

    monkeypatch.setattr(migrations, "MIGRATIONS", [add_rating])
    migrated = Store.open(store.uri)
    assert "rating" in migrated.columns().names and migrated.count() == 2
    Store.open(store.uri)
    assert len(runs) == 1
    monkeypatch.setattr(migrations, "MIGRATIONS", [])
    with pytest.raises(SchemaError, match="upgrade"):
        Store.open(store.uri)


def test_a_damaged_collection_says_so(store: Store):
    for file in (Path(store.uri) / "images.lance" / "_versions").iterdir():
        file.unlink()
    with pytest.raises(SchemaError, match="images"):
        Store.open(store.uri)


def test_optimize_compacts_once_and_then_leaves_the_version(store: Store, rows):
    for start in range(0, 50, 5):
        store.upsert(rows(range(start, start + 5)))
    store.delete(range(0, 50, 3))
    left = store.ids()
    truth = store.vectors_of("visual", left)
    store.optimize()
    version = store.version
    assert store.stats()["tables"]["images"]["fragments"] == 1
    store.optimize()
    assert store.version == version
    assert np.array_equal(store.vectors_of("visual", left), truth)
    store.delete(left[:10])
    version = store.version
    store.optimize()
    assert store.version > version, "much was deleted: the fragment is written again"


def test_indexes_come_with_size_and_follow_new_rows(store: Store, rows):
    store.upsert(rows(range(maintenance.MIN_INDEXED_ROWS), dims={}))
    store.optimize()
    version = store.version
    store.optimize()
    assert store.version == version
    store.upsert(rows([10**6, 5], uri=["/new", "/moved"]))
    store.optimize()
    indexes = store.stats()["tables"]["images"]["indexes"]
    assert set(indexes) == set(maintenance.INDEXED)
    assert {index["rows"] for index in indexes.values()} == {store.count()}
    assert store.find_uri("/moved") == 5 and store.find_uri("/photos/5.jpg") is None
    assert store.find_uri("/new") == 10**6 and store.find_uri("/photos/77.jpg") == 77
    assert list(store.ids("uri like '/mov%' or image_id = 7")) == [5, 7]


def traces(folder: str, needle: bytes) -> list[Path]:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [path for path in files if needle in path.read_bytes()]


@pytest.mark.parametrize("indexed", [False, True])
def test_purge_leaves_no_byte_of_what_is_gone(store: Store, rows, indexed: bool):
    rng = np.random.default_rng(0)
    secret, replaced, kept = (rng.bytes(400) for _ in range(3))
    if indexed:
        store.upsert(rows(range(100, 100 + maintenance.MIN_INDEXED_ROWS), dims={}))
    store.upsert(rows(range(50), thumbnail=[kept] * 50))
    private = rows([50, 51], uri=["/secret-place.jpg", "/51"], thumbnail=[secret, replaced])
    store.upsert(private)
    store.optimize()
    store.update(pa.table({"image_id": [51], "thumbnail": [kept], "label": ["short"]}))
    store.record_failures(pa.Table.from_pylist([failure("/secret-failure.jpg"), failure("/x")]))
    vector = store.vectors_of("visual", [50]).tobytes()
    for needle in (secret, replaced, vector, b"secret-failure"):
        assert traces(store.uri, needle), "the search must be able to find it"
    store.delete([50])
    store.clear_failures(["/secret-failure.jpg"])
    store.purge()
    for needle in (secret, replaced, vector, b"secret-place", b"secret-failure"):
        assert traces(store.uri, needle) == []
    assert store.thumbnails([51]) == {51: kept} and len(store.failures()) == 1
    assert store.stats()["tables"]["images"]["versions"] == 1
    assert Store.open(store.uri).count() == store.count() == len(store.ids())
    if indexed:
        assert set(store.stats()["tables"]["images"]["indexes"]) == set(maintenance.INDEXED)
        assert store.find_uri("/51") == 51 and store.find_uri("/secret-place.jpg") is None


def test_reading_what_another_handle_purged_is_a_clear_error(store: Store, rows):
    store.upsert(rows(range(20)))
    other = Store.open(store.uri)
    store.delete([1])
    store.purge()
    for read in (other.ids, other.known, lambda: list(other.vectors("visual"))):
        with pytest.raises(CollectionError, match="refresh"):
            read()
    assert other.refresh()
    assert other.count() == len(other.ids()) == 19


def test_stats_counts_bytes(store: Store, rows):
    empty = store.stats()["size_bytes"]
    store.upsert(rows([1], thumbnail=[np.random.default_rng(0).bytes(50_000)]))
    assert store.stats()["size_bytes"] >= empty + 50_000
    assert store.stats()["tables"]["images"]["rows"] == 1
