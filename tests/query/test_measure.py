"""Recall as it is now: of an index with all that came since, and of real searches."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from app.main import app
from retrieval.errors import UnknownSpace, VectorIndexError
from retrieval.query import Collection
from retrieval.query.measure import LiveRecall
from retrieval.store import Store
from retrieval.types import Space

DIM, ROWS = 16, 600


def unit(seed: int, n: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def put(store: Store, first: int, vectors: np.ndarray) -> None:
    ids = np.arange(first, first + len(vectors))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    uris, flags = [f"/photos/{i}.jpg" for i in ids], pa.array([True] * len(ids))
    store.upsert(pa.table({"image_id": ids, "uri": uris, "vector_s": flat, "embedded_s": flags}))


@pytest.fixture
def collection(tmp_path):
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    put(store, 0, unit(0, ROWS))
    return Collection(store)


def test_an_exact_index_measures_as_exact_with_all_that_came_since(collection):
    collection.build_index("s", "exact")
    put(collection.store, ROWS, unit(1, 200))
    collection.store.delete(np.arange(50))
    measured = collection.measure_index("s")
    assert measured.ann_recall_at_10 == 1.0
    assert measured.queries == 400
    assert measured.latency_ms > 0


def test_a_bad_index_measures_as_bad(collection):
    facts = collection.build_index("s", "rabitq", target=0.5)
    effort = facts["effort"]
    poor = collection.measure_index("s", "rabitq").ann_recall_at_10
    collection.build_index("s", "rabitq", target=0.999)
    good = collection.measure_index("s", "rabitq")
    assert collection.indexes("s")[0]["effort"] > effort
    assert poor < good.ann_recall_at_10
    assert good.low >= 0.99
    queries = unit(9, 300)
    found = collection.neighbors(queries, "s", k=10, index="rabitq")
    true = collection.neighbors(queries, "s", k=10, index="exact")
    real = float((found.scores >= true.scores[:, -1:] - 1e-6).mean())
    assert real == pytest.approx(good.ann_recall_at_10, abs=0.03)


def test_real_searches_are_watched(collection):
    collection.build_index("s", "rabitq", target=0.5)
    live = collection._searcher.live_recall = LiveRecall(every=1)
    queries, shares = unit(5, 40), []
    for query in queries:
        collection.search(vector=query, k=10)
        live._thread.join()
        found = collection.neighbors(query[None], "s", k=10, index="rabitq").scores[0]
        true = collection.neighbors(query[None], "s", k=10, index="exact").scores[0]
        shares.append((found >= true[-1] - 1e-6).mean())
    recall, checked = collection.live_recall()
    assert checked == 40
    assert recall == pytest.approx(np.mean(shares))
    assert recall < 1


def test_only_one_of_many_is_checked_and_none_without_an_index(collection):
    assert collection.live_recall() == (None, 0)
    for query in unit(5, 5):
        collection.search(vector=query)
    assert collection.live_recall() == (None, 0)
    collection.build_index("s", "exact")
    live = collection._searcher.live_recall = LiveRecall(every=3)
    for query in unit(5, 9):
        collection.search(vector=query)
        if live._thread is not None:
            live._thread.join()
    collection.search(vector=unit(5, 1)[0], where="image_id > 3")  # filtered ones are not
    assert collection.live_recall() == (1.0, 3)


def test_what_is_not_there_is_told(collection):
    with pytest.raises(UnknownSpace):
        collection.measure_index("t")
    with pytest.raises(VectorIndexError, match="hnsw"):
        collection.measure_index("s", "hnsw")


def test_the_command_tells_of_every_index(collection):
    run = CliRunner().invoke
    nothing = run(app, ["evaluate", "index", "-c", collection.uri, "--json"])
    assert json.loads(nothing.stdout) == {"indexes": []}
    collection.build_index("s", "exact")
    collection.build_index("s", "rabitq")
    told = json.loads(run(app, ["evaluate", "index", "-c", collection.uri, "--json"]).stdout)
    by_kind = {each["kind"]: each for each in told["indexes"]}
    assert set(by_kind) == {"exact", "rabitq"}
    assert by_kind["exact"]["ann_recall_at_10"] == 1.0
    people = run(app, ["evaluate", "index", "-c", collection.uri]).stdout
    assert "rabitq" in people
    assert "1.0000" in people
