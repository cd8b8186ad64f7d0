"""Exact scores of candidates: right, and gathered in blocks however many there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.vectors import rescore as module
from retrieval.vectors.base import Effort
from retrieval.vectors.kinds import backend
from retrieval.vectors.rescore import rescore
from tests.vectors.clusters import ArrayRows, clustered

DATA = clustered(600, 16, queries=40)


class Watched:
    """Rows that remember the most bytes which were taken at once."""

    def __init__(self, rows: ArrayRows) -> None:
        self.rows, self.shape, self.blocks, self.most = rows, rows.shape, rows.blocks, 0

    def take(self, positions):
        self.most = max(self.most, 4 * len(positions) * self.shape[1])
        return self.rows.take(positions)


@given(
    q=st.integers(1, 7),
    c=st.integers(0, 40),
    k=st.integers(1, 12),
    gather=st.sampled_from([1, 200, 1000, 1 << 24]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_candidates_are_those_of_sorting_all(q, c, k, gather, seed):
    rng = np.random.default_rng(seed)
    candidates = np.stack([rng.permutation(600)[:c] for _ in range(q)]).astype(np.int64)
    candidates[rng.random(candidates.shape) < 0.2] = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GATHER_BYTES", gather)
        found, scores = rescore(DATA.rows, DATA.queries[:q], candidates, k)
    assert found.shape == scores.shape == (q, k)
    for query, some, ids, got in zip(DATA.queries, candidates, found, scores, strict=False):
        real = some[some >= 0]
        exact = DATA.rows.matrix[real].astype(np.float64) @ query
        order = np.lexsort((real, -exact))[:k]
        assert ids.tolist() == real[order].tolist() + [-1] * (k - len(order))
        np.testing.assert_allclose(got[: len(order)], exact[order], atol=1e-6)
        assert np.isneginf(got[len(order) :]).all()


@pytest.mark.parametrize("queries", [1, 2, 40])
def test_vectors_are_gathered_in_blocks(queries, monkeypatch):
    monkeypatch.setattr(module, "_GATHER_BYTES", 4096)
    rows, candidates = Watched(DATA.rows), np.tile(np.arange(600), (queries, 1))
    rescore(rows, DATA.queries[:queries], candidates, 10)
    assert 0 < rows.most <= 4096


@pytest.mark.skipif(backend("rabitq").missing() is not None, reason="needs FAISS")
def test_the_doubts_of_a_filtered_search_are_looked_into_in_blocks(tmp_path, monkeypatch):
    made = backend("rabitq")
    made.build(DATA.rows, tmp_path)
    monkeypatch.setattr(module, "_GATHER_BYTES", 4096)
    monkeypatch.setattr("retrieval.vectors.faiss_search._EXACT_BLOCK", 64)
    rows, allowed = Watched(DATA.rows), np.arange(600) % 2 == 0
    index = made.open(tmp_path, rows)
    found = index.candidates(DATA.queries, 20, Effort(1, 4), allowed)
    assert allowed[found[found >= 0]].all()
    assert 0 < rows.most <= 4096
