"""Made columns: whole, with where they come from, and no row is newer for it."""

from __future__ import annotations

import threading

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import CollectionError
from retrieval.store import Store
from retrieval.store import made as made_module
from retrieval.store.made import Provenance


def values(store: Store, *names: str) -> dict[int, tuple]:
    table = store.made.read(names)
    columns = [table[name].to_pylist() for name in names]
    return dict(zip(table["image_id"].to_pylist(), zip(*columns, strict=True), strict=True))


def column(ids, **columns) -> pa.Table:
    return pa.table({"image_id": pa.array(ids, pa.int64()), **columns})


def state(store: Store) -> dict[int, tuple[int, int]]:
    """Row id and last change of every image."""
    with store._images.reading() as dataset:
        rows = dataset.scanner(
            columns=["image_id", "_row_last_updated_at_version"], with_row_id=True
        ).to_table()
    others = zip(rows["_rowid"].to_pylist(), rows[1].to_pylist(), strict=True)
    return dict(zip(rows["image_id"].to_pylist(), others, strict=True))


@pytest.fixture
def filled(tmp_path, space, rows) -> Store:
    """Several fragments with changed and deleted rows."""
    store = Store.create(tmp_path / "c", [space()])
    for start in (0, 50, 100):
        store.upsert(rows(range(start, start + 50)))
    store.delete([3, 60, 149])
    store.update(pa.table({"image_id": [7, 101], "label": ["a", "b"]}))
    return store


def test_values_are_where_they_belong_and_no_row_is_newer(filled):
    before = state(filled)
    ids = np.random.default_rng(0).permutation(150)[:100]
    wanted = {int(i): (i / 7, f"ü{i}", bool(i % 2), int(i)) for i in ids}
    rows = column(
        list(wanted),
        **dict(zip("abcd", map(list, zip(*wanted.values(), strict=True)), strict=True)),
    )
    for factor in (1, 2):  # a new column and one that is there
        rows = rows.set_column(1, "a", pa.array([factor * i / 7 for i in wanted]))
        filled.made.write(rows, Provenance("test", version=filled.version))
        found = values(filled, "a", "b", "c", "d")
        assert sorted(found) == filled.ids().tolist()
        for image_id, got in found.items():
            a, *others = wanted.get(image_id, (None,) * 4)
            assert got == (None if a is None else factor * image_id / 7, *others)
        assert state(filled) == before
    assert filled.ids("d < 20 and c = true").tolist() == sorted(
        i for i in wanted if i < 20 and i % 2 and i in before
    )
    filled.optimize()
    filled.purge()
    assert values(filled, "d") == {i: (i if i in wanted else None,) for i in before}
    assert {i: changed for i, (_, changed) in state(filled).items()} == {
        i: changed for i, (_, changed) in before.items()
    }


def test_provenance_says_what_is_outdated(filled, rows):
    made = Provenance("test", "visual", {"k": 3}, version=filled.version)
    filled.made.write(column(filled.ids(), x=filled.ids() / 1.0), made)
    again = filled.again()
    found = again.made.columns()["x"]
    assert (found.made_by, found.space, found.parameters) == ("test", "visual", {"k": 3})
    assert found.version < found.written <= again.version
    assert again.made.outdated()["x"] == 0
    filled.upsert(rows([1, 500]))
    filled.update(pa.table({"image_id": [2], "label": ["new"]}))
    assert again.refresh() and again.made.outdated()["x"] == 3
    kept = values(again, "x")
    assert kept[500] == (None,) and kept[2] == (2.0,)


def test_what_a_person_gave_is_not_written_over(filled):
    filled.add_columns(pa.schema([("mine", pa.float64())]))
    filled.update(pa.table({"image_id": [1], "mine": [5.0]}))
    version = filled.version
    for name in ("mine", "label", "vector_x", "_rowid", "a.b"):
        with pytest.raises(CollectionError, match=name):
            filled.made.write(column([1], **{name: [1.0]}), Provenance("test"))
    assert filled.version == version and filled.made.columns() == {}
    assert values(filled, "mine")[1] == (5.0,)
    filled.made.write(column([1], ours=[1.0]), Provenance("test"))
    with pytest.raises(CollectionError, match="made by 'test'"):
        filled.add_columns(pa.schema([("ours", pa.float64())]))


def test_an_empty_collection_takes_columns_too(tmp_path, space, rows):
    store = Store.create(tmp_path / "c", [space()])
    store.made.write(column([], x=pa.array([], pa.float64())), Provenance("test", version=1))
    store.upsert(rows([1]))
    assert values(store, "x") == {1: (None,)}
    store.made.write(column([], x=pa.array([], pa.float64())), Provenance("test", version=1))
    assert values(store, "x") == {1: (None,)}


def test_a_failed_write_leaves_what_was(filled, monkeypatch):
    filled.made.write(column([1], x=[1.0]), Provenance("test", version=filled.version))

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(lance.LanceDataset, "commit", fail)
    with pytest.raises(CollectionError, match="no space left"):
        filled.made.write(column([1], x=[2.0]), Provenance("test", version=filled.version))
    monkeypatch.undo()
    again = filled.again()
    assert values(again, "x")[1] == (1.0,)
    assert again.made.columns()["x"].version == 0, "unfinished: all of it counts as outdated"
    assert again.made.outdated()["x"] == again.count()
    again.made.write(column([1], x=[3.0]), Provenance("test", version=again.version))
    assert values(again, "x")[1] == (3.0,) and again.made.outdated()["x"] == 0


def test_what_others_write_meanwhile_is_kept(filled, rows, monkeypatch):
    """The other writer comes between reading the rows and the commit, once each way."""
    other = filled.again()
    turns = [
        lambda: other.upsert(rows([700, 701])),
        lambda: other.update(pa.table({"image_id": [8], "label": ["theirs"]})),
        lambda: other.delete([9]),
        lambda: other.add_columns(pa.schema([("theirs", pa.int64())])),
        lambda: other.optimize(),
    ]
    commit = lance.LanceDataset.commit

    def late(*args, **kwargs):
        if turns:
            turns.pop(0)()
        return commit(*args, **kwargs)

    monkeypatch.setattr(lance.LanceDataset, "commit", staticmethod(late))
    ids = filled.ids()
    while turns:
        filled.made.write(column(ids, x=ids * 2.0), Provenance("test", version=filled.version))
    found = values(filled, "x")
    assert found == {i: (2.0 * i if i in ids else None,) for i in {*ids, 700, 701} - {9}}
    assert filled.records([8])[0].label == "theirs"
    assert "theirs" in filled.columns().names


def test_two_writers_at_once_lose_nothing(filled, rows):
    errors = []

    def add() -> None:
        try:
            mine = filled.again()
            for number in range(1000, 1012):
                mine.upsert(rows([number]))
                mine.update(pa.table({"image_id": [number], "label": [str(number)]}))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    store, ids = filled.again(), filled.ids()
    for factor in range(6):
        store.made.write(column(ids, x=ids * factor), Provenance("test", version=store.version))
    thread.join()
    assert errors == []
    store.refresh()
    found = values(store, "x", "label")
    assert {i: found[i][0] for i in ids.tolist()} == {i: 5 * i for i in ids.tolist()}
    assert {i: found[i] for i in range(1000, 1012)} == {
        i: (None, str(i)) for i in range(1000, 1012)
    }


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("wudco")), min_size=1, max_size=12))
def test_any_order_of_writes_keeps_every_value(tmp_path_factory, steps):
    """Against a plain dictionary."""
    store = Store.create(tmp_path_factory.mktemp("any") / "c")
    plain: dict[int, list] = {}
    for number, kind in steps:
        if kind == "w":
            ids = [i for i in range(31) if (i + number) % 3]
            store.made.write(
                column(ids, x=[i * number for i in ids]), Provenance("test", version=1)
            )
            for i in plain:
                plain[i][0] = i * number if i in ids else None
        elif kind == "u":
            store.upsert(pa.table({"image_id": [number], "uri": [f"/{number}"]}))
            plain[number] = [None, None]
        elif kind == "d":
            store.delete([number])
            plain.pop(number, None)
        elif kind == "c":
            store.update(pa.table({"image_id": [number], "label": [kind]}))
            if number in plain:
                plain[number][1] = kind
        else:
            store._images.commit(lambda dataset: dataset.optimize.compact_files())
            store.refresh()
    names = ["label", *(["x"] if "x" in store.columns().names else [])]
    found = {i: [*reversed(row)] for i, row in values(store, *names).items()}
    if len(names) == 1:
        found = {i: [None, *row] for i, row in found.items()}
    assert found == plain


def test_what_is_remembered_must_be_whole(filled):
    filled._tables.manifest.set_columns({"x": {"strange": 1}})
    with pytest.raises(made_module.SchemaError, match="damaged"):
        filled.made.columns()


@pytest.mark.parametrize("name", ["a b", "50%20ü", "x#y?z", "c+d&e"])
def test_any_place_takes_columns(tmp_path, space, rows, name):
    store = Store.create(tmp_path / name, [space()])
    store.upsert(rows([1, 2]))
    store.made.write(column([2], x=[0.5]), Provenance("test", version=store.version))
    assert values(Store.open(tmp_path / name), "x") == {1: (None,), 2: (0.5,)}
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_bucket_takes_columns(bucket, space, rows):
    store = Store.create("s3://bucket/made", [space()], storage_options=bucket)
    store.upsert(rows([1, 2]))
    for number in (0.5, 1.5):
        store.made.write(column([2], x=[number]), Provenance("test", version=store.version))
    again = Store.open("s3://bucket/made", storage_options=bucket)
    assert values(again, "x") == {1: (None,), 2: (1.5,)}
    assert again.made.outdated()["x"] == 0
