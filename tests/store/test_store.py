"""Making, opening, writing and reading a collection."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pytest

from retrieval.errors import (
    CollectionError,
    CollectionNotFound,
    QueryError,
    SpaceMismatch,
    UnknownSpace,
)
from retrieval.store import Store


def test_create_open_exists(tmp_path: Path, space):
    place = tmp_path / "säule #1 %20?.lance"
    assert not Store.exists(place)
    made = Store.create(place, [space("a"), space("b-b", 4, dtype="float16")])
    assert Store.exists(place)
    again = Store.open(place)
    assert dict(again.spaces) == dict(made.spaces) == {s.name: s for s in made.spaces.values()}
    assert again.spaces["b-b"].dtype == "float16"
    assert again.version == made.version
    assert again.count() == 0 and again.ids().dtype == np.int64 and list(again.vectors("a")) == []


def test_missing_collection_names_the_way_out(tmp_path: Path):
    with pytest.raises(CollectionNotFound, match="retrieval index FOLDER"):
        Store.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_create_refuses_what_is_there(tmp_path: Path, store: Store):
    with pytest.raises(CollectionError, match="already"):
        Store.create(store.uri)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(CollectionError, match=r"a\.jpg"):
        Store.create(tmp_path / "photos")
    with pytest.raises(CollectionError, match="cannot hold"):
        Store.create(tmp_path / "photos" / "a.jpg")


def test_create_again_after_a_creation_that_was_killed(tmp_path: Path, space):
    place = tmp_path / "c"
    Store.create(place)
    for left in (place / "manifest.lance").rglob("*"):
        if left.is_file():
            left.unlink()
    assert not Store.exists(place)
    assert list(Store.create(place, [space()]).spaces) == ["visual"]


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.create("x/../c").uri == str(tmp_path / "c")
    assert Store.open("~/c").uri == str(tmp_path / "c")
    assert Store.open((tmp_path / "c").as_uri()).uri == str(tmp_path / "c")


def test_open_heals_a_space_without_columns(store: Store, space):
    # the manifest is written first: this is what a kill between the two leaves
    Store.open(store.uri)._tables.manifest.add_space(space("late", 3))
    healed = Store.open(store.uri)
    assert healed.spaces["late"].dim == 3
    assert list(healed.vectors("late")) == []
    assert store.refresh() and "late" in store.spaces


def test_records_come_in_the_order_asked(store: Store, rows):
    taken = datetime(2024, 5, 31, 18, 30)
    store.add_columns(pa.schema([("kids", pa.bool_()), ("price", pa.float64())]))
    store.upsert(
        rows(
            [7, 3, 5],
            width=[640] * 3,
            height=[480] * 3,
            format=["JPEG"] * 3,
            captured_at=[taken, None, None],
            label=["dog", None, "cat"],
            tags=[["new", "wet"], None, []],
            metadata=['{"make": "Canon", "kids": "json"}', None, "{}"],
            kids=[True, False, None],
        )
    )
    five, seven, again, three = store.records([5, 7, 7, 3])
    assert (five.image_id, five.label, five.tags, five.metadata) == (5, "cat", (), {})
    assert seven == again and seven.captured_at == taken and seven.tags == ("new", "wet")
    assert seven.metadata == {"make": "Canon", "kids": True}
    assert three.metadata == {"kids": False} and three.width == 640 and three.uri == "/photos/3.jpg"
    assert store.records([]) == []
    with pytest.raises(QueryError, match="4"):
        store.records([5, 4])


def test_upsert_replaces_and_update_keeps(store: Store, rows):
    store.upsert(rows([1, 2], label=["a", "b"], split=["train", "test"]))
    before = store.vectors_of("visual", [2])
    assert store.update(pa.table({"image_id": [2, 9], "label": ["c", "d"]})) == 1
    assert store.rows([2], ["label", "split"]).to_pylist() == [{"label": "c", "split": "test"}]
    assert np.array_equal(store.vectors_of("visual", [2]), before)
    store.upsert(rows([2], dims={}))
    assert store.rows([2], ["label", "split"]).to_pylist() == [{"label": None, "split": None}]
    with pytest.raises(QueryError, match="image 2 has no vector"):
        store.vectors_of("visual", [1, 2])


def test_rows_of_other_columns_and_thumbnails(store: Store, rows):
    store.upsert(rows([1, 2, 3], thumbnail=[b"one", None, b"three"]))
    assert store.thumbnails([3, 2, 1]) == {3: b"three", 1: b"one"}
    assert store.rows([3, 1], ["uri"])["uri"].to_pylist() == ["/photos/3.jpg", "/photos/1.jpg"]
    with pytest.raises(QueryError, match="nope"):
        store.rows([1], ["nope"])
    with pytest.raises(QueryError, match="whole numbers"):
        store.rows(["1"], ["uri"])


def test_find(store: Store, rows):
    store.upsert(rows([1, 2, 3], uri=["/it's", "/b", "/c"], content_hash=["x", "x", "y"]))
    assert store.find_uri("/it's") == 1
    assert store.find_uri("' or '1'='1") is None
    assert store.find_hash("x") == [1, 2]


def test_vectors_are_exact_in_blocks(tmp_path: Path, space, rows):
    store = Store.create(tmp_path / "c", [space("visual"), space("half", 4, dtype="float16")])
    table = rows(range(100), dims={"visual": 8, "half": 4})
    store.upsert(table)
    store.upsert(rows([100], dims={}))
    blocks = list(store.vectors("visual", block_rows=32))
    assert max(len(ids) for ids, _ in blocks) <= 32
    ids = np.concatenate([ids for ids, _ in blocks])
    matrix = np.concatenate([vectors for _, vectors in blocks])
    assert matrix.dtype == np.float32 and sorted(ids) == list(range(100))
    truth = table["vector_visual"].combine_chunks().flatten().to_numpy().reshape(-1, 8)
    assert np.array_equal(matrix, truth[ids])
    assert np.array_equal(store.vectors_of("visual", [50, 2]), truth[[50, 2]])
    assert {vectors.dtype for _, vectors in store.vectors("half")} == {np.dtype(np.float16)}
    assert store.vectors_of("half", [1]).dtype == np.float32
    assert store.vectors_of("half", []).shape == (0, 4)
    with pytest.raises(UnknownSpace, match="visual"):
        store.vectors("other")


def test_known_says_what_is_embedded_without_reading_vectors(store: Store, space, rows):
    store.upsert(rows([1, 2]))
    store.upsert(rows([3], dims={}))
    store.add_space(space("late", 4))
    store.update(rows([3], dims={"late": 4}).select(["image_id", "vector_late"]))
    known = store.known().sort_by("image_id")
    assert known["embedded:visual"].to_pylist() == [True, True, False]
    assert known["embedded:late"].to_pylist() == [False, False, True]
    assert known.column_names[:5] == ["image_id", "uri", "content_hash", "size_bytes", "mtime_ns"]


def test_delete(store: Store, rows):
    store.upsert(rows(range(10)))
    assert store.delete([3, 99, 3]) == 1
    assert store.delete([]) == store.delete([3]) == 0
    assert list(store.ids()) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert 3 not in np.concatenate([ids for ids, _ in store.vectors("visual")])
    with pytest.raises(QueryError, match="3"):
        store.records([2, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_must_be_finite(store: Store, rows, bad):
    values = np.zeros(16, np.float32)
    values[9] = bad
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), 8)
    version = store.version
    with pytest.raises(CollectionError, match="'visual' is not finite"):
        store.upsert(rows([1, 2], dims={}, vector_visual=column))
    assert store.version == version


def test_rows_that_do_not_fit_are_refused(store: Store, rows):
    for table, message in (
        (rows([1], dims={"visual": 7}), "dim 8, not 7"),
        (rows([1, 1]), "twice"),
        (rows([1], strange=[1]), "strange"),
        (rows([1], width=["wide"]), "width"),
        (rows([1], metadata=["{"]), "not JSON"),
        (rows([1], metadata=["[1]"]), "JSON object"),
        (rows([1], dims={}).drop_columns(["uri"]), "uri"),
        (rows([1], uri=pa.nulls(1, pa.string())), "uri"),
    ):
        with pytest.raises(CollectionError, match=message):
            store.upsert(table)
    assert store.count() == 0


def test_a_space_is_added_once(store: Store, space):
    other = Store.open(store.uri)
    store.add_space(space("late", 4))
    store.add_space(space("la-te", 4))
    store.add_space(space("late", 4, runtime="elsewhere"))
    other.add_space(space("late", 4))
    assert other.spaces["late"] == store.spaces["late"]
    with pytest.raises(SpaceMismatch, match="late"):
        other.add_space(space("late", 4, weights_hash="x" * 32))
    with pytest.raises(CollectionError, match="share the column"):
        other.add_space(space("la_te", 4))


def test_user_columns(store: Store, rows):
    fields = pa.schema([("kids", pa.bool_()), ("shutter speed", pa.float64())])
    store.add_columns(fields)
    version = store.version
    store.add_columns(fields)
    assert store.version == version
    assert {"kids", "shutter speed"} <= set(store.columns().names)
    assert not {"thumbnail", "vector_visual", "embedded_visual"} & set(store.columns().names)
    for field, message in (
        (("kids", pa.string()), "bool.*string"),
        (("uri", pa.string()), "system column"),
        (("vector_x", pa.int64()), "system column"),
        (("a.b", pa.int64()), "dot"),
        (("", pa.int64()), "empty"),
        (("x", pa.binary()), "binary"),
    ):
        with pytest.raises(CollectionError, match=message):
            store.add_columns(pa.schema([field]))


def test_a_handle_reads_one_version_until_refresh(store: Store, rows):
    store.upsert(rows([1, 2]))
    other = Store.open(store.uri)
    store.upsert(rows([3]))
    store.delete([1])
    assert list(other.ids()) == [1, 2] and other.records([1])[0].image_id == 1
    assert other.refresh() and not other.refresh()
    assert other.version == store.version
    assert list(other.ids()) == [2, 3] and other.records([3])[0].image_id == 3
    with pytest.raises(QueryError):
        other.records([1])


def test_lancedb_opens_the_same_directory(store: Store, rows):
    lancedb = pytest.importorskip("lancedb")
    store.upsert(rows([1, 2], metadata=['{"a": 1}', None]))
    table = lancedb.connect(store.uri).open_table("images")
    assert table.count_rows() == 2
    query = store.vectors_of("visual", [2])[0]
    assert (
        table.search(query, vector_column_name="vector_visual").limit(1).to_list()[0]["image_id"]
        == 2
    )


def test_import_stays_light():
    code = (
        "import sys, retrieval.store; print([m for m in ('lance', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_real_catalogue(store: Store, rows, shared_data):
    folder = shared_data("clothing")
    listed = pa.csv.read_csv(folder / "labels.csv")
    store.add_columns(pa.schema([("kids", pa.bool_())]))
    kids = pa.compute.equal(pa.compute.utf8_lower(listed["kids"].cast(pa.string())), "true")
    facts = {"label": listed["label"], "split": listed["split"], "kids": kids}
    store.upsert(rows(range(len(listed)), **facts))
    truth = [
        place
        for place, row in enumerate(pa.table(facts).to_pylist())
        if row["label"] in ("Shoes", "Dress") and not (row["split"] == "train" or row["kids"])
    ]
    where = "label in ('Shoes', 'Dress') and not (split = 'train' or kids = true)"
    assert truth and list(store.ids(where)) == truth
    assert store.count("label like 'S%'") == sum(
        x.startswith("S") for x in facts["label"].to_pylist()
    )


def test_spaces_come_in_the_order_they_were_added(tmp_path, space):
    store = Store.create(str(tmp_path / "c"), [space("zebra"), space("mole")])
    store.add_space(space("ant"))
    assert list(store.spaces) == ["zebra", "mole", "ant"]
    assert list(Store.open(str(tmp_path / "c")).spaces) == ["zebra", "mole", "ant"]


def test_every_runtime_that_computed_vectors_is_remembered(store: Store):
    name = next(iter(store.spaces))
    first = store.space(name).runtime
    for runtime in ("torch-cpu-fp32", "openvino-cpu-bf16", "torch-cpu-fp32"):
        store.add_runtime(name, runtime)
    ran = [first] if first else []
    ran += ["torch-cpu-fp32", "openvino-cpu-bf16"]
    assert store.space(name).runtime == ", ".join(ran)
    assert Store.open(store.uri).space(name).runtime == ", ".join(ran)
