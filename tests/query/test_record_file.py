"""Records out of the memory-mapped file are the table's records, whatever happens to either."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from retrieval.errors import QueryError
from retrieval.query import Collection, record_file
from retrieval.query.indexing import Indexes
from retrieval.query.records import Records
from retrieval.store import Store
from retrieval.types import ImageRecord
from tests.query.fresh_child import SPACE, new, rows, unit, vectors_only

N = 40
NEW = pa.schema([("note", pa.string())])
ADDED = pa.schema(
    [
        ("fits", pa.bool_()),
        ("price", pa.int64()),
        ("weight", pa.float64()),
        ("brand", pa.string()),
        ("bought", pa.timestamp("us")),
    ]
)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Files of few rows in batches of fewer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_file, "_FEWEST", 1)
        patch.setattr(record_file, "_BATCH_ROWS", 7)
        yield


def full(ids: Sequence[int], label: str = "x") -> pa.Table:
    """Rows of which every column holds something, and nothing, in turn."""

    def some(make: Callable[[int], object]) -> list[object]:
        return [None if (i * 7 + n) % 3 == 0 else make(i) for n, i in enumerate(ids)]

    first = datetime(1969, 7, 20, 20, 17, 40, 123456)
    columns = {
        "content_hash": some(lambda i: f"{i:032x}"),
        "width": pa.array(some(lambda i: 600 + i), pa.int32()),
        "height": pa.array(some(lambda i: 400 + i), pa.int32()),
        "format": some(lambda i: "JPEG"),
        "size_bytes": some(lambda i: 2**40 + i),
        "captured_at": pa.array(some(lambda i: first + timedelta(days=i)), pa.timestamp("us")),
        "split": some(lambda i: "träin"),
        "tags": pa.array(some(lambda i: ["a", "ß", ""][: i % 4]), pa.list_(pa.string())),
        "metadata": some(lambda i: f'{{"a": {{"b": [1, 2.5, null, "é{i}"]}}, "fits": 3}}'),
        "fits": some(lambda i: i % 2 == 0),
        "price": some(lambda i: 2**53 + 1 + i),
        "weight": some(lambda i: i / 3),
        "brand": some(lambda i: f"ärmel {i}"),
        "bought": pa.array(some(lambda i: first + timedelta(hours=i)), pa.timestamp("us")),
    }
    table = rows(ids, unit(1, len(ids)), label)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def made(place: Path) -> Store:
    store = new(place)
    store.add_columns(ADDED)
    store.upsert(full(range(0, N, 2)))
    store.upsert(full(range(1, N, 2)))  # rows do not lie in the order of their ids
    assert Indexes(store.again()).keep_records()
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made(tmp_path / "c")


@pytest.fixture
def from_table(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that were read from the table and not from a file."""
    seen: list[int] = []
    real = Store.records

    def noted(self, ids):
        seen.extend(np.asarray(ids).tolist())
        return real(self, ids)

    monkeypatch.setattr(Store, "records", noted)
    return seen


def check(records: Records, store: Store) -> None:
    """Everything is as the table says, in any order."""
    store.refresh()
    ids = np.random.default_rng(0).permutation(np.repeat(store.ids(), 2))
    assert records.of(ids) == store.records(ids)
    assert records.of([]) == []
    for gone in [i for i in range(-1, N + 20) if i not in ids]:
        with pytest.raises(QueryError, match=f"no image with id {gone}$"):
            records.of([*ids[:2], gone])


def folders_of(store: Store) -> list[Path]:
    return sorted(p for p in Indexes(store).records.glob("*") if not p.name.startswith("."))


# -- values -------------------------------------------------------------------------------------


def test_the_file_holds_what_the_table_holds(store: Store, from_table: list[int]) -> None:
    expected = store.records(range(N))
    from_table.clear()
    assert Records(store).of(range(N)) == expected
    assert from_table == []
    assert {type(value) for record in expected for value in record.metadata.values()} >= {
        bool, int, float, str, datetime, dict,
    }  # fmt: skip


def test_only_what_changed_is_read_from_the_table(store: Store, from_table: list[int]) -> None:
    records = Records(store)
    records.of([0])
    other = store.again()
    other.update(pa.table({"image_id": [3], "label": ["new"]}))
    other.upsert(full([N + 1]))
    store.refresh()
    found = records.of([5, N + 1, 3, 4])
    assert [record.image_id for record in found] == [5, N + 1, 3, 4]
    assert [record.label for record in found] == ["x", "x", "new", "x"]
    assert from_table == [N + 1, 3]


IDS = st.lists(st.integers(0, N + 10), min_size=1, max_size=8, unique=True)
EDITS = st.one_of(
    st.tuples(st.sampled_from(["upsert", "label", "vector", "delete", "purge"]), IDS),
    st.tuples(st.sampled_from(["compact", "column", "renew", "nothing"]), st.none()),
)


def edit(store: Store, what: str, ids: list[int]) -> None:
    if what == "upsert":
        store.upsert(full(ids, "y"))
    elif what == "label":
        store.update(pa.table({"image_id": ids, "label": ["z"] * len(ids)}))
    elif what == "vector":
        store.update(vectors_only(ids, unit(2, len(ids))))
    elif what == "delete":
        store.delete(ids)
    elif what == "purge":
        Collection(store.again()).delete(ids, purge=True)
    elif what == "compact":
        store.optimize()
    elif what == "column":
        store.add_columns(NEW)
        store.update(pa.table({"image_id": [1, 2], "note": ["one", None]}))
    elif what == "renew":
        Indexes(store.again()).keep_records()


def edited(edits: list[list[tuple[str, list[int]]]]) -> None:
    """Follow a collection through edits; of each list all lie between two looks of the reader."""
    folder = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.store.maintenance.MAX_SMALL_FRAGMENTS", 1)
        try:
            store = made(folder / "c")
            reader = store.again()
            records = Records(reader)
            for some in edits:
                for what, ids in some:
                    edit(store, what, ids)
                check(records, reader)
            check(Records(reader), reader)
        finally:
            shutil.rmtree(folder)


def run(examples: int) -> None:
    some = st.lists(st.lists(EDITS, min_size=1, max_size=3), max_size=6)
    settings(max_examples=examples, deadline=None, derandomize=True)(given(some)(edited))()


def test_records_are_never_stale() -> None:
    run(10)


@pytest.mark.slow
def test_records_are_never_stale_at_length() -> None:
    run(150)


def test_what_another_process_writes_is_in_the_next_answer(store: Store) -> None:
    collection = Collection(store)

    def ask() -> dict[int, ImageRecord]:
        return {hit.image.image_id: hit.image for hit in collection.search(image_id=4, k=N)}

    assert ask()[4].label == "x" and collection.get(4).label == "x"
    code = (
        "import sys, pyarrow as pa\n"
        "from retrieval.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "store.update(pa.table({'image_id': [4], 'label': ['théirs']}))\n"
        "store.delete([5])\n"
    )
    subprocess.run([sys.executable, "-c", code, store.uri], check=True)
    found = ask()
    assert found[4].label == "théirs" and len(found) == N - 1
    assert collection.get(4).label == "théirs"
    with pytest.raises(QueryError, match="no image with id 5"):
        collection.get(5)


def test_a_write_that_was_overtaken_counts_from_its_own_version(store: Store) -> None:
    overtaken = store.again()._images.snapshot
    store.update(pa.table({"image_id": [1], "label": ["first"]}))
    records, seen = Records(store), store.version
    records.of([2])
    late = pa.table({"image_id": [2], "label": ["late"]})
    overtaken.merge_insert("image_id").when_matched_update_all().execute(late)
    store.refresh()
    assert store.changed(seen).tolist() == [2]
    assert records.of([2])[0].label == "late"


# -- the file's life ----------------------------------------------------------------------------


def test_an_index_brings_the_file_and_keeps_it_up(store: Store, from_table: list[int]) -> None:
    collection = Collection(store)
    shutil.rmtree(Indexes(store).records)
    collection.build_index(SPACE, "exact")
    [first] = folders_of(store)
    assert not collection.update_indexes() and folders_of(store) == [first]
    store.update(pa.table({"image_id": [1, 2, 3], "label": ["new"] * 3}))
    assert collection.update_indexes()
    [second] = folders_of(store)
    assert second != first
    assert collection.get(2).label == "new" and from_table == []


def test_another_column_makes_another_file(store: Store, from_table: list[int]) -> None:
    collection = Collection(store)
    [first] = folders_of(store)
    store.add_columns(NEW)
    store.update(pa.table({"image_id": [1], "note": ["one"]}))
    assert collection.get(1).metadata["note"] == "one" and from_table == [1]
    collection.update_indexes()
    assert len(folders_of(store)) == 1 and folders_of(store) != [first]
    assert collection.get(1).metadata["note"] == "one" and from_table == [1]


def test_a_small_collection_needs_no_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(record_file, "_FEWEST", 100)
    store = new(tmp_path / "c")
    store.upsert(rows(range(50), unit(1, 50)))
    assert not Indexes(store).keep_records() and folders_of(store) == []
    assert Records(store).of([3, 1]) == store.records([3, 1])


def test_the_file_of_another_collection_is_not_used(store: Store, tmp_path: Path) -> None:
    other = new(tmp_path / "other")
    other.add_columns(ADDED)
    other.upsert(full(range(N), "mine"))
    while other.version <= store.version:
        other.update(pa.table({"image_id": [0], "split": ["test"]}))
    shutil.copytree(Indexes(store).records, Indexes(other).records)
    check(Records(other), other)
    assert Records(other).of([7])[0].label == "mine"


def test_nothing_of_a_deleted_image_is_left_after_a_purge(store: Store) -> None:
    collection, open_elsewhere = Collection(store), Collection(store.again())
    secret = "/very-secret-17.jpg"
    store.upsert(full([17]).set_column(1, "uri", pa.array([secret])))
    collection.build_index(SPACE, "exact")
    collection.update_indexes()
    assert open_elsewhere.get(17).uri == secret

    def holders() -> list[Path]:
        files = [p for p in Path(store.uri).rglob("*") if p.is_file()]
        return [p for p in files if secret.encode() in p.read_bytes()]

    assert any(p.name == "records.arrow" for p in holders())
    collection.delete([17], purge=True)
    assert holders() == [] and folders_of(store) == []
    for each in (collection, open_elsewhere):
        assert each.get(16).image_id == 16
        with pytest.raises(QueryError):
            each.get(17)


# -- damage -------------------------------------------------------------------------------------


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_damage_anywhere_is_found_and_told(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    [folder] = folders_of(store)
    whole = Path(store.uri) / "whole"
    shutil.copytree(folder, whole)
    expected = store.records(range(N))
    harms = []
    for path in sorted(whole.iterdir()):
        size = path.stat().st_size
        for at in {0, size - 1, *range(3, size, max(1, size // 40))}:
            harms.append((path.name, lambda file, at=at: flipped(file, at)))
        for length in (0, size // 2, size - 2):  # the last byte of the note is but a line's end
            harms.append((path.name, lambda file, n=length: os.truncate(file, n)))
        harms.append((path.name, Path.unlink))
    for name, harm in harms:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        harm(folder / name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert Records(store).of(range(N)) == expected
        assert "damaged" in caplog.text and not folder.exists(), name


def test_damage_after_opening_is_found_before_it_is_read(store: Store) -> None:
    records = Records(store)
    records.of([0])
    [folder] = folders_of(store)
    path = folder / "records.arrow"
    at = path.read_bytes().rindex(b"/39.jpg")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"/38.png")
    assert records.of([39]) == store.records([39])
    assert not folder.exists()
    check(records, store)


def test_what_may_pass_throws_nothing_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(path: str) -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    [folder] = folders_of(store)
    with monkeypatch.context() as patch:
        patch.setattr(pa, "memory_map", none_left)
        with caplog.at_level(logging.WARNING):
            assert Records(store).of(range(N)) == store.records(range(N))
    assert "cannot be used now" in caplog.text
    assert folders_of(store) == [folder]
    check(Records(store), store)
