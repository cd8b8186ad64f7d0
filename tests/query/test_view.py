"""A view without an index holds all vectors: moving it on costs no more than it must."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from retrieval.query.view import first_view, moved
from retrieval.store import Store
from retrieval.types import Space

DIM, ROWS = 256, 3000


def vectors(seed: int, n: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(store: Store, ids: np.ndarray, rows: np.ndarray) -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIM)
    uris = [f"/{number}.jpg" for number in ids]
    labels = ["x"] * len(ids)
    store.upsert(pa.table({"image_id": ids, "uri": uris, "label": labels, "vector_s": flat}))


@pytest.fixture
def store(tmp_path):
    made = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    put(made, np.arange(ROWS), vectors(0, ROWS))
    return made


def test_vectors_stay_where_they_are_if_only_a_label_changed(store):
    view = first_view(store, "s", None)
    store.update(pa.table({"image_id": np.arange(50), "label": ["y"] * 50}))
    later = moved(view, store, "s")
    assert later.version > view.version
    assert later.fresh is view.fresh


def test_vectors_are_copied_once_if_some_changed(store):
    view = first_view(store, "s", None)
    store.delete(np.arange(10, 20))
    put(store, np.arange(ROWS - 5, ROWS + 5), vectors(1, 10))
    tracemalloc.start()
    try:
        later = moved(view, store, "s")
        assert tracemalloc.get_traced_memory()[1] < 1.5 * view.fresh[1].nbytes
    finally:
        tracemalloc.stop()
    held = dict(zip(later.fresh[0].tolist(), later.fresh[1], strict=True))
    true = dict(enumerate(vectors(0, ROWS)))
    true.update(zip(range(ROWS - 5, ROWS + 5), vectors(1, 10), strict=True))
    assert held.keys() == true.keys() - set(range(10, 20))
    assert all((held[number] == true[number]).all() for number in held)


def test_all_may_go_and_come_again(store):
    view = first_view(store, "s", None)
    store.delete(np.arange(ROWS))
    empty = moved(view, store, "s")
    assert empty.fresh[0].shape == (0,) and empty.fresh[1].shape == (0, DIM)
    put(store, np.arange(3), vectors(2, 3))
    np.testing.assert_array_equal(moved(empty, store, "s").fresh[1], vectors(2, 3))
