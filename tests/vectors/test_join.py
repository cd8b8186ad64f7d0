"""Pairs and neighbour graphs against comparing everything in float64."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retrieval.vectors import graph, join
from retrieval.vectors.graph import knn_graph
from retrieval.vectors.join import pairs_above, pairs_between
from retrieval.vectors.products import Full, Half, fastest
from tests.vectors.clusters import ArrayRows

here = importlib.util.find_spec("torch") is not None
KINDS = [
    pytest.param(Full, id="float32"),
    pytest.param(
        Half, id="half", marks=[pytest.mark.slow, pytest.mark.skipif(not here, reason="torch")]
    ),
]


@pytest.fixture(params=KINDS, scope="module")
def products(request):
    before = join.fastest
    join.fastest = graph.fastest = lambda work: request.param()
    request.param()  # imports torch, which takes longer than an example may
    yield request.param
    join.fastest = graph.fastest = before


def near_copies(rng, n, dim):
    """Rows of which many are close to others, and some the same."""
    base = rng.standard_normal((max(1, n // 3), dim))
    rows = base[rng.integers(0, len(base), n)]
    rows = rows + rng.choice([0.0, 0.05, 0.3], (n, 1)) * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(matrix):
    wide = matrix.astype(np.float64)
    return wide @ wide.T


def everything(pairs):
    found = list(pairs)
    if not found:
        return {}
    a, b, score = (np.concatenate(part) for part in zip(*found, strict=True))
    assert a.dtype == b.dtype == np.int64 and score.dtype == np.float32
    assert (a < b).all()
    made = dict(zip(zip(a.tolist(), b.tolist(), strict=True), score.tolist(), strict=True))
    assert len(made) == len(a), "a pair came twice"
    return made


@settings(deadline=None)
@given(
    n=st.integers(0, 90),
    dim=st.integers(1, 40),
    threshold=st.floats(-1.0, 0.9999),
    start=st.integers(0, 95),
    memory=st.sampled_from([1, 3000, 20_000, 1 << 20]),
    few=st.sampled_from([0.0, 1 / 32, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_are_those_of_brute_force(products, n, dim, threshold, start, memory, few, seed):
    matrix = near_copies(np.random.default_rng(seed), n, dim)
    cosines = exact(matrix)
    assume(not (np.abs(cosines - threshold) < 1e-6).any())
    done = []

    def tell(*told):
        done.append(told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "_FEW_SHARE", few)
        found = everything(
            pairs_above(ArrayRows(matrix), threshold, memory_bytes=memory, start=start, tell=tell)
        )

    a, b = np.nonzero(np.triu(cosines >= threshold, 1))
    late = b >= start
    assert found.keys() == set(zip(a[late].tolist(), b[late].tolist(), strict=True))
    for (x, y), score in found.items():
        assert abs(score - cosines[x, y]) < 1e-6
    assert [told[0] for told in done] == sorted({told[0] for told in done})
    if start < n:
        assert done[-1] == (n, n)


@settings(deadline=None)
@given(
    n=st.integers(0, 60),
    m=st.integers(0, 60),
    dim=st.integers(1, 40),
    threshold=st.floats(-1.0, 0.9999),
    memory=st.sampled_from([1, 3000, 20_000, 1 << 20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_between_are_those_of_brute_force(products, n, m, dim, threshold, memory, seed):
    both = near_copies(np.random.default_rng(seed), n + m, dim)
    left, right = both[:n], both[n:]
    cosines = left.astype(np.float64) @ right.astype(np.float64).T
    assume(not (np.abs(cosines - threshold) < 1e-6).any())
    done = []
    found = list(
        pairs_between(
            ArrayRows(left),
            ArrayRows(right),
            threshold,
            memory_bytes=memory,
            tell=lambda *told: done.append(told),
        )
    )
    pairs = [pair for a, b, _ in found for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs), "a pair came twice"
    assert set(pairs) == set(map(tuple, np.argwhere(cosines >= threshold).tolist()))
    for a, b, score in found:
        assert a.dtype == b.dtype == np.int64 and score.dtype == np.float32
        np.testing.assert_allclose(score, cosines[a, b], atol=1e-6)
    assert done == sorted(set(done)) and (not n or done[-1] == (n, n))


@pytest.mark.skipif(not here, reason="torch")
def test_a_graphics_processor_is_taken_where_torch_sees_one(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = fastest(1 << 50)
    assert isinstance(found, Half) and found.device == "cuda" and found.score_bytes == 4
    monkeypatch.delitem(sys.modules, "torch")
    assert isinstance(fastest(1), Full), "torch is not imported for little"


@settings(deadline=None)
@given(
    n=st.integers(2, 30),
    dim=st.integers(1, 700),
    stretch=st.sampled_from([0.0, 1e-6, 9e-4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_identical_rows_reach_a_cosine_of_one(products, n, dim, stretch, seed):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(dim)
    row *= (1 + stretch * rng.uniform(-1, 1)) / np.linalg.norm(row)
    matrix = np.tile(row.astype(np.float32), (n, 1))
    matrix[n // 2] *= -1
    found = everything(pairs_above(ArrayRows(matrix), 1.0))
    same = [i for i in range(n) if i != n // 2]
    assert found == {(a, b): 1.0 for a in same for b in same if a < b}
    positions, scores = knn_graph(ArrayRows(matrix), 1)
    assert n < 3 or (scores[same] == 1.0).all()
    assert (positions[same, 0] == [next(j for j in [*same, n // 2] if j != i) for i in same]).all()


def test_pairs_go_on_where_they_stopped(products):
    rows = ArrayRows(near_copies(np.random.default_rng(5), 300, 8))
    whole = everything(pairs_above(rows, 0.9, memory_bytes=5000))
    stopped: list[int] = []
    first = []
    for part in pairs_above(
        rows, 0.9, memory_bytes=5000, tell=lambda done, _: stopped.append(done)
    ):
        first.append(part)
        if len(stopped) > 2:
            break
    kept = {pair: s for pair, s in everything(first).items() if pair[1] < stopped[-1]}
    rest = everything(pairs_above(rows, 0.9, memory_bytes=5000, start=stopped[-1]))
    assert kept and rest and not kept.keys() & rest.keys()
    assert kept | rest == whole


@settings(deadline=None)
@given(
    n=st.integers(0, 90),
    dim=st.integers(1, 40),
    k=st.integers(1, 12),
    memory=st.sampled_from([1, 3000, 20_000, 1 << 20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_neighbours_are_those_of_brute_force(products, n, dim, k, memory, seed):
    matrix = near_copies(np.random.default_rng(seed), n, dim)
    done = []
    positions, scores = knn_graph(
        ArrayRows(matrix), k, memory_bytes=memory, tell=lambda *told: done.append(told)
    )
    assert positions.shape == scores.shape == (n, k)
    assert positions.dtype == np.int64 and scores.dtype == np.float32
    cosines = np.clip(exact(matrix), -1.0, 1.0)
    np.fill_diagonal(cosines, -np.inf)
    filled = min(k, max(n - 1, 0))
    assert (positions[:, filled:] == -1).all() and np.isneginf(scores[:, filled:]).all()
    positions, scores = positions[:, :filled], scores[:, :filled]
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :filled], atol=1e-6)
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, positions, 1), atol=1e-6)
    assert all(len(set(row)) == filled for row in positions.tolist())
    tied = np.diff(scores, axis=1) == 0
    assert (np.diff(positions, axis=1)[tied] > 0).all(), "equal scores come by position"
    assert not n or done[-1] == (n, n)


def test_many_copies_of_one_row_are_told_by_position(products):
    row = np.random.default_rng(0).standard_normal(16)
    matrix = np.tile((row / np.linalg.norm(row)).astype(np.float32), (500, 1))
    positions, _ = knn_graph(ArrayRows(matrix), 3, memory_bytes=1 << 15)
    want = [[p for p in range(4) if p != i][:3] for i in range(500)]
    assert positions.tolist() == want
    assert len(everything(pairs_above(ArrayRows(matrix), 0.999, memory_bytes=1 << 15))) == 124_750


@settings(deadline=None)
@given(
    dim=st.integers(1, 700),
    left=st.integers(1, 9),
    right=st.integers(1, 300),
    scale=st.sampled_from([1.0, 1e-3]),
    stretch=st.sampled_from([0.0, 9e-4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_no_further_off_than_they_say(
    products, dim, left, right, scale, stretch, seed
):
    rng = np.random.default_rng(seed)
    kinds = [Full()] if products is Full else [Half(), Half("float16")]
    a, b = rng.standard_normal((left, dim)), rng.standard_normal((right, dim))
    a[:, 1:] *= scale
    b[: right // 2] = a[rng.integers(0, left, right // 2)]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    a, b = (
        (x * (1 + stretch * rng.uniform(-1, 1, (len(x), 1)))).astype(np.float32) for x in (a, b)
    )
    want = a.astype(np.float64) @ b.astype(np.float64).T
    lengths = [np.linalg.norm(x.astype(np.float64), axis=1) for x in (a, b)]
    cosine = want / np.outer(*lengths)
    for made in kinds:
        x, y = made.hold(a), made.hold(b)
        got = made.scores(x, y)
        wide = np.array(got) if products is Full else got.float().numpy()
        margin = made.margin(x, y)
        assert np.abs(wide - want).max() <= margin < 0.02
        assert np.abs(wide - cosine).max() <= margin
        for groups in (1, min(right, 7), right):
            best = made.maxima(got, groups)
            padded = np.pad(wide, ((0, 0), (0, -right % groups)), constant_values=-2)
            np.testing.assert_array_equal(best, padded.reshape(left, -1, groups).max(axis=1))
            bounds = np.median(wide, axis=1)
            row, group = np.nonzero(best >= bounds[:, None])
            row, column = made.look(got, row, group, groups, bounds[row])
            seen = np.zeros_like(wide, dtype=bool)
            seen[row, column] = True
            np.testing.assert_array_equal(seen, wide >= bounds[:, None])
            assert len(row) == seen.sum()


@pytest.mark.parametrize("threshold", [0.99, -1.0])
def test_keeps_to_its_budget(threshold, monkeypatch):
    monkeypatch.setattr(join, "fastest", lambda work: Full())
    monkeypatch.setattr(graph, "fastest", lambda work: Full())
    rows, budget = ArrayRows(near_copies(np.random.default_rng(0), 3000, 32)), 16 << 20
    tracemalloc.start()
    try:
        found = sum(len(a) for a, _, _ in pairs_above(rows, threshold, memory_bytes=budget))
        knn_graph(rows, 10, memory_bytes=budget)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found > (2999 * 1500 - 1 if threshold < 0 else 1000)
    assert peak < 1.25 * budget
