"""The exact scan against sorting everything in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.vectors import nearest


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def oracle(ids, rows, queries, k):
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    order = np.lexsort((np.broadcast_to(ids, scores.shape), -scores), axis=1)[:, :k]
    return ids[order], np.take_along_axis(scores, order, 1)


@given(
    n=st.integers(0, 60),
    q=st.integers(1, 5),
    k=st.integers(1, 80),
    dim=st.integers(1, 9),
    cut=st.integers(1, 20),
    half=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_sorting_everything(n, q, k, dim, cut, half, seed):
    rng = np.random.default_rng(seed)
    rows, queries = unit(rng, n, dim), unit(rng, q, dim)
    rows = rows.astype(np.float16) if half else rows
    ids = rng.permutation(1000)[:n].astype(np.int64)
    allowed = np.sort(ids[rng.random(n) < 0.7]) if seed % 2 else None
    blocks = [(ids[i : i + cut], rows[i : i + cut]) for i in range(0, n, cut)]

    found = nearest(blocks, queries, k, allowed=allowed)

    keep = np.isin(ids, ids if allowed is None else allowed)
    exact = rows.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    want_ids, want_scores = oracle(ids[keep], exact[keep], queries, k)
    filled = want_ids.shape[1]
    assert found.ids.shape == found.scores.shape == (q, k)
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32
    assert (found.ids[:, filled:] == -1).all()
    assert np.isneginf(found.scores[:, filled:]).all()
    np.testing.assert_allclose(found.scores[:, :filled], np.clip(want_scores, -1, 1), atol=2e-6)
    by_id = dict(zip(ids.tolist(), exact, strict=True))
    for row in range(q):
        assert len(set(found.ids[row, :filled])) == filled
        for got, score in zip(found.ids[row, :filled], found.scores[row, :filled], strict=True):
            assert abs(np.clip(by_id[got] @ queries[row], -1, 1) - score) < 2e-6


def test_equal_scores_come_in_the_order_of_their_ids():
    rows = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (9, 1))
    ids = np.array([8, 3, 5, 1, 9, 2, 7, 4, 6], dtype=np.int64)
    blocks = [(ids[:4], rows[:4]), (ids[4:], rows[4:])]
    found = nearest(blocks, rows[:1], 5)
    assert found.ids.tolist() == [[1, 2, 3, 4, 5]]


def test_a_block_larger_than_the_scan_budget_is_cut():
    rng = np.random.default_rng(0)
    rows = unit(rng, 300_000, 4)
    ids = np.arange(300_000, dtype=np.int64)
    queries = unit(rng, 100, 4)
    found = nearest([(ids, rows)], queries, 3)
    _, want = oracle(ids, rows, queries, 3)
    np.testing.assert_allclose(found.scores, want, atol=2e-6)


def test_very_many_allowed_ids_are_not_read_for_each_block():
    rng = np.random.default_rng(0)
    rows, ids = unit(rng, 300, 4), rng.permutation(2_000_000)[:300]
    allowed = np.arange(0, 2_000_000, 2)
    blocks = [(ids[i : i + 10], rows[i : i + 10]) for i in range(0, 300, 10)]
    tracemalloc.start()
    try:
        found = nearest(blocks, rows[:2], 5, allowed=allowed)
        assert tracemalloc.get_traced_memory()[1] < len(allowed)
    finally:
        tracemalloc.stop()
    keep = ids % 2 == 0
    np.testing.assert_array_equal(found.ids, oracle(ids[keep], rows[keep], rows[:2], 5)[0])
    assert (nearest(blocks, rows[:2], 5, allowed=allowed[:0]).ids == -1).all()


def test_arguments_are_not_changed():
    rng = np.random.default_rng(1)
    rows, queries = unit(rng, 20, 3), unit(rng, 2, 3)
    kept = rows.copy(), queries.copy()
    nearest([(np.arange(20), rows)], queries, 4)
    np.testing.assert_array_equal(rows, kept[0])
    np.testing.assert_array_equal(queries, kept[1])
