"""A space as a whole: its rows are those that live, range queries and joins miss none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import QueryError
from retrieval.query import Collection, space_vectors
from retrieval.store import Store
from retrieval.types import Space

DIM, ROWS = 12, 300


def unit(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    rows = centres[rng.integers(0, 20, n)] + 0.3 * rng.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def put(store: Store, ids: np.ndarray, vectors: np.ndarray) -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    uris = [f"/photos/{number}.jpg" for number in ids]
    flags = pa.array([True] * len(ids))
    columns = {"image_id": ids, "uri": uris, "vector_s": flat, "embedded_s": flags}
    store.upsert(pa.table(columns))


@pytest.fixture(params=["exact", None], ids=["with an index", "without"])
def made(request, tmp_path):
    """A collection of which rows were changed, deleted and added after its index was made."""
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    vectors = dict(enumerate(unit(0, ROWS)))
    put(store, np.arange(ROWS), unit(0, ROWS))
    collection = Collection(store)
    if request.param:
        collection.build_index("s", request.param)
    store.delete(np.arange(10, 40))
    for gone in range(10, 40):
        del vectors[gone]
    new = unit(1, 80)
    put(store, np.arange(ROWS - 30, ROWS + 50), new)  # thirty have another vector now
    vectors.update(zip(range(ROWS - 30, ROWS + 50), new, strict=True))
    return collection, vectors


def test_rows_are_those_that_live(made):
    collection, vectors = made
    space = collection.vectors("s")
    assert sorted(space.ids.tolist()) == sorted(vectors)
    expected = np.stack([vectors[i] for i in space.ids.tolist()])
    np.testing.assert_array_equal(np.concatenate(list(space.blocks(17))), expected)
    np.testing.assert_array_equal(np.concatenate(list(space.blocks(64, 101))), expected[101:])
    at = np.random.default_rng(0).permutation(len(expected))
    np.testing.assert_array_equal(space.take(at), expected[at])
    assert space.shape == expected.shape


def test_it_stays_as_it_was_when_the_collection_changes(made):
    collection, vectors = made
    space = collection.vectors("s")
    collection.delete(sorted(vectors)[:50])
    assert len(space.ids) == len(vectors)
    assert np.isfinite(np.concatenate(list(space.blocks(1000)))).all()
    assert len(collection.vectors("s").ids) == len(vectors) - 50


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 0.9, 1.5])
def test_a_range_query_misses_nothing(made, threshold):
    collection, vectors = made
    queries = unit(5, 7)
    matches = collection.vectors("s").within(queries, threshold)
    assert matches.complete
    ids = np.array(sorted(vectors))
    scores = queries.astype(np.float64) @ np.stack([vectors[i] for i in ids]).T.astype(np.float64)
    for number in range(7):
        part = slice(matches.offsets[number], matches.offsets[number + 1])
        found = dict(zip(matches.ids[part].tolist(), matches.scores[part], strict=True))
        sure = set(ids[scores[number] >= threshold + 1e-6].tolist())
        perhaps = set(ids[scores[number] >= threshold - 1e-6].tolist())
        assert sure <= set(found) <= perhaps
        assert (np.diff(matches.scores[part]) <= 0).all()
        for image_id, score in found.items():
            assert score == pytest.approx(scores[number][ids == image_id][0], abs=1e-5)


def test_a_limit_keeps_the_best_and_says_that_it_cut(made):
    collection, _ = made
    space, queries = collection.vectors("s"), unit(5, 3)
    whole, some = space.within(queries, -1), space.within(queries, -1, limit=4)
    assert not some.complete
    assert np.diff(some.offsets).tolist() == [4, 4, 4]
    for number in range(3):
        first = whole.ids[whole.offsets[number] : whole.offsets[number] + 4]
        np.testing.assert_array_equal(some.ids[4 * number : 4 * number + 4], first)
    assert space.within(queries, -1, limit=10_000).complete
    assert len(space.within(queries[:0], 0.5).ids) == 0


@pytest.mark.parametrize("limit", [1, 4, 29, 30, 400])
def test_a_limit_is_kept_while_blocks_are_read(made, limit, monkeypatch):
    space, queries, held = made[0].vectors("s"), unit(5, 5), []
    best = space_vectors._best

    def watched(found, limit):
        held.append(0 if limit is None else len(found[0]))
        return best(found, limit)

    monkeypatch.setattr(space_vectors, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(space_vectors, "_best", watched)
    for threshold in (-1.0, 0.3, 0.95, 1.5):
        whole = space.within(queries, threshold)
        some = space.within(queries, threshold, limit=limit)
        counts = np.diff(whole.offsets)
        assert some.complete == (counts <= limit).all()
        assert np.diff(some.offsets).tolist() == np.minimum(counts, limit).tolist()
        first = np.arange(len(whole.ids)) - np.repeat(whole.offsets[:-1], counts) < limit
        np.testing.assert_array_equal(some.ids, whole.ids[first])
        np.testing.assert_array_equal(some.scores, whole.scores[first])
    assert 0 < max(held) <= len(queries) * (limit + 7)


def test_pairs_and_graph_are_those_of_brute_force(made):
    collection, vectors = made
    space = collection.vectors("s")
    rows = np.stack([vectors[i] for i in space.ids.tolist()]).astype(np.float64)
    cosines = rows @ rows.T
    found = {}
    for a, b, scores in space.pairs(0.93, memory_bytes=1 << 20):
        for one, other, score in zip(a.tolist(), b.tolist(), scores, strict=True):
            assert frozenset((one, other)) not in found
            found[frozenset((one, other))] = score
    above = np.argwhere(np.triu(cosines >= 0.93, 1))
    expected = {frozenset(space.ids[pair].tolist()) for pair in above}
    assert expected
    assert set(found) == expected

    graph = space.knn_graph(5)
    np.fill_diagonal(cosines, -np.inf)
    best = -np.sort(-cosines, axis=1)[:, :5]
    np.testing.assert_allclose(graph.scores, best, atol=1e-6)
    at = {image_id: place for place, image_id in enumerate(space.ids.tolist())}
    for place, neighbours in enumerate(graph.ids):
        assert int(space.ids[place]) not in neighbours
        np.testing.assert_allclose(
            [cosines[place, at[i]] for i in neighbours.tolist()], best[place], atol=1e-6
        )


def test_what_makes_no_sense_is_refused(made):
    space = made[0].vectors("s")
    with pytest.raises(QueryError, match="shape"):
        space.within(np.ones((1, DIM + 1), np.float32), 0.5)
    with pytest.raises(QueryError, match="limit"):
        space.within(unit(0, 1), 0.5, limit=0)
    with pytest.raises(QueryError, match="k is at least 1"):
        space.knn_graph(0)
