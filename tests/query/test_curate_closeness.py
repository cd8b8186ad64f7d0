"""Uniqueness and representativeness, by value against comparing all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import CollectionError, QueryError, UnknownSpace
from retrieval.query import Collection
from retrieval.query.curate.closeness import NEIGHBORS
from retrieval.store import Store
from retrieval.types import Space

DIM = 12


def made(tmp_path, vectors: np.ndarray, ids=None) -> Collection:
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    ids = np.arange(len(vectors)) if ids is None else ids
    if len(vectors):
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
        uris = [f"/{number}.jpg" for number in ids]
        splits = ["train" if number % 3 else "test" for number in ids]
        rows = {"image_id": ids, "uri": uris, "split": splits, "vector_s": flat}
        store.upsert(pa.table(rows))
    return Collection(store)


def unit(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((8, DIM))[rng.integers(0, 8, n)] + rng.standard_normal((n, DIM)) / 3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def columns(collection: Collection, *names: str) -> dict[int, tuple]:
    rows = collection.store.made.read(names)
    values = [rows[name].to_pylist() for name in names]
    return dict(zip(rows["image_id"].to_pylist(), zip(*values, strict=True), strict=True))


@pytest.mark.parametrize("n", [2, 9, NEIGHBORS, NEIGHBORS + 1, NEIGHBORS + 2, 200])
def test_they_are_what_comparing_all_gives(tmp_path, n):
    vectors = unit(n, n)
    vectors[-1] = vectors[0]  # the same picture twice
    ids = np.random.default_rng(1).permutation(10 * n)[:n]
    collection = made(tmp_path, vectors, ids)
    report = collection.shape(["uniqueness"])
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    best = -np.sort(-cosines, axis=1)[:, : min(NEIGHBORS, n - 1)]
    found = columns(collection, "uniqueness", "representativeness")
    got = np.array([found[i] for i in ids.tolist()])
    np.testing.assert_allclose(got[:, 0], np.clip(1 - best[:, 0], 0, 1), atol=2e-6)
    np.testing.assert_allclose(got[:, 1], np.clip(best.mean(axis=1), 0, 1), atol=2e-6)
    twins = ids[best[:, 0] > 0.9]
    assert report.near_twins == len(twins) and report.measured == {"uniqueness": n}
    where = "uniqueness < 0.1 and split = 'train'"
    assert collection.store.ids(where).tolist() == sorted(twins[twins % 3 > 0].tolist())


def test_opposites_are_unique_and_not_more(tmp_path):
    one = np.eye(DIM, dtype=np.float32)[:1]
    collection = made(tmp_path, np.concatenate([one, -one]))
    collection.shape(["uniqueness"])
    assert columns(collection, "uniqueness", "representativeness") == {0: (1, 0), 1: (1, 0)}


def test_who_is_alone_has_no_value(tmp_path):
    collection = made(tmp_path, unit(0, 1))
    collection.store.upsert(pa.table({"image_id": [7], "uri": ["/7.jpg"]}))  # without a vector
    assert collection.shape(["uniqueness"]).near_twins == 0
    assert columns(collection, "uniqueness", "representativeness") == {
        0: (None,) * 2,
        7: (None,) * 2,
    }


def test_an_empty_collection_has_a_shape(tmp_path):
    report = made(tmp_path, unit(0, 0)).shape()
    assert (report.images, report.near_twins, list(report.clusters)) == (0, 0, [])


def test_status_tells_where_a_column_comes_from_and_what_is_outdated(tmp_path):
    collection = made(tmp_path, unit(0, 40))
    collection.shape(["uniqueness"])
    facts = {column["name"]: column for column in collection.status()["made"]}
    assert sorted(facts) == ["representativeness", "uniqueness"]
    assert facts["uniqueness"]["space"] == "s" and facts["uniqueness"]["outdated"] == 0
    assert facts["uniqueness"]["parameters"] == {"neighbors": NEIGHBORS}
    collection.store.upsert(pa.table({"image_id": [90, 91], "uri": ["/90", "/91"]}))
    assert [column["outdated"] for column in collection.status()["made"]] == [2, 2]
    collection.shape(["uniqueness"])
    assert [column["outdated"] for column in collection.status()["made"]] == [0, 0]


def test_a_column_of_a_person_is_left_alone(tmp_path):
    collection = made(tmp_path, unit(0, 5))
    collection.store.add_columns(pa.schema([("representativeness", pa.float64())]))
    with pytest.raises(CollectionError, match="your own"):
        collection.shape()
    assert "uniqueness" not in collection.store.columns().names


def test_what_cannot_be_asked_is_refused(tmp_path):
    collection = made(tmp_path, unit(0, 5))
    with pytest.raises(QueryError, match="uniqueness, quality, clusters"):
        collection.shape(["beauty"])  # type: ignore[list-item]
    with pytest.raises(UnknownSpace):
        collection.shape(space="other")
