"""The exact scan and its top k against sorting everything in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.vectors.base import Effort
from retrieval.vectors.scan import Scan
from retrieval.vectors.top import Top


class Memory:
    """Rows in memory; remembers how they were read."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.taken = matrix, matrix.shape, 0

    def blocks(self, size, start=0):
        for begin in range(start, len(self.matrix), size):
            yield self.matrix[begin : begin + size]

    def take(self, positions):
        self.taken += len(positions)
        return self.matrix[positions]


def unit(rng, n, dim):
    rows = rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def best(scores, k, ids):
    order = np.lexsort((np.broadcast_to(ids, scores.shape), -scores), axis=1)[:, :k]
    return ids[order], np.take_along_axis(scores, order, 1)


@settings(deadline=None)
@given(
    n=st.integers(0, 80),
    q=st.integers(0, 4),
    k=st.integers(1, 90),
    dim=st.integers(1, 9),
    share=st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_sorting_everything(n, q, k, dim, share, seed):
    rng = np.random.default_rng(seed)
    matrix, queries = unit(rng, n, dim), unit(rng, q, dim)
    allowed = None if share is None else rng.random(n) < share
    index = Scan().open("unused", Memory(matrix))

    found = index.candidates(queries, k, Effort(), allowed)

    keep = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    scores = queries.astype(np.float64) @ matrix[keep].astype(np.float64).T
    _, want = best(scores, k, keep)
    assert found.dtype == np.int64 and found.shape == (q, k)
    assert (found[:, want.shape[1] :] == -1).all()
    for query, row, expected in zip(queries, found[:, : want.shape[1]], want, strict=True):
        assert len(set(row)) == len(row) and np.isin(row, keep).all()
        np.testing.assert_allclose(matrix[row] @ query, expected, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_ties_come_by_position_across_blocks(share, monkeypatch):
    monkeypatch.setattr("retrieval.vectors.scan._SCORE_BYTES", 4 * 3 * 100)
    matrix = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (1000, 1))
    allowed = np.random.default_rng(0).random(1000) < share
    rows = Memory(matrix)
    found = Scan().open("unused", rows).candidates(matrix[:3], 7, Effort(), allowed)
    assert (found[:, : allowed.sum()] == np.flatnonzero(allowed)[:7]).all()
    assert rows.taken == (allowed.sum() if share < 0.25 else 0), "few are taken, many are masked"


@settings(deadline=None)
@given(
    m=st.integers(1, 3000),
    q=st.integers(1, 4),
    k=st.integers(1, 12),
    cut=st.integers(50, 3000),
    levels=st.sampled_from([1, 3, 50, 10**6]),
    rising=st.booleans(),
    barred=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_top_keeps_the_best_whatever_order_they_come_in(m, q, k, cut, levels, rising, barred, seed):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-levels, levels + 1, (q, m)) / levels).astype(np.float32)
    scores *= np.float32(1.0000002)
    if rising:
        scores.sort(axis=1)
    if barred:
        scores[:, rng.random(m) < 0.7] = -np.inf
    ids = rng.permutation(5 * m)[:m]

    top = Top(q, k)
    for start in range(0, m, cut):
        top.add(ids[start : start + cut], scores[:, start : start + cut].copy())
    found = top.best()

    for row in range(q):
        real = np.isfinite(scores[row])
        want, high = best(np.clip(scores[row, real], -1, 1)[None], k, ids[real])
        filled = want.shape[1]
        assert found.ids[row, :filled].tolist() == want[0].tolist()
        assert found.scores[row, :filled].tolist() == high[0].tolist()
        assert (found.ids[row, filled:] == -1).all()
        assert np.isneginf(found.scores[row, filled:]).all()


def test_writes_nothing(tmp_path):
    rows = Memory(unit(np.random.default_rng(0), 5, 3))
    scan = Scan()
    scan.build(rows, tmp_path)
    scan.extend(tmp_path, rows, 2, tmp_path)
    assert list(tmp_path.iterdir()) == [] and scan.missing() is None and scan.incremental
    assert scan.open(tmp_path, rows).memory_bytes == 0
