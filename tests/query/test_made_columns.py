"""A made column over all images leaves indexes and records as true as they were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.query import Collection, record_file
from retrieval.store import Store
from retrieval.store.made import Provenance
from retrieval.types import Space

ROWS, DIM = 300, 8


@pytest.fixture
def collection(tmp_path) -> Collection:
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    uris = [f"/{number}.jpg" for number in range(ROWS)]
    store.upsert(pa.table({"image_id": range(ROWS), "uri": uris, "vector_s": flat}))
    return Collection(store)


def write(store: Store, factor: float) -> None:
    ids = store.ids()
    store.made.write(
        pa.table({"image_id": ids, "x": ids * factor}), Provenance("test", version=store.version)
    )


def test_no_index_is_behind(collection):
    collection.build_index("s", "exact")
    before = collection.indexes("s")[0]
    write(collection.store.again(), 2.0)
    write(collection.store, 0.5)
    after = collection.indexes("s")[0]
    assert after["behind"] == 0 and after["version"] == before["version"]
    assert not collection.update_indexes()
    assert len(collection.store.changed(before["version"])) == 0
    query = collection.store.vectors_of("s", [7])
    assert collection.search(vector=query[0], where="x < 3.6", k=1)[0].image.image_id == 7


@pytest.mark.parametrize("by", ["this process", "another"])
def test_records_that_are_kept_show_the_newest_values(collection, monkeypatch, by):
    monkeypatch.setattr(record_file, "_FEWEST", 1)
    writer = collection.store if by == "this process" else collection.store.again()
    collection.build_index("s", "exact")
    for factor in (1.0, 2.0, 3.0):
        write(writer, factor)
        assert collection.get(7).metadata["x"] == 7 * factor
        collection.update_indexes()
        assert collection.get(7).metadata["x"] == 7 * factor
