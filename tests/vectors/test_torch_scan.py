"""The 16-bit scan against the exact one: equal, not merely close."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.vectors import torch_scan
from retrieval.vectors.base import Effort
from retrieval.vectors.products import Half
from retrieval.vectors.scan import ScanIndex
from retrieval.vectors.torch_scan import HalfIndex, TorchScan
from tests.vectors.clusters import ArrayRows, clustered

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOMS = [("bfloat16", True), ("bfloat16", False), ("float16", True), ("float16", False)]


@settings(deadline=None)
@given(
    n=st.integers(0, 400),
    q=st.integers(0, 5),
    k=st.integers(1, 30),
    dim=st.integers(1, 80),
    spread=st.sampled_from([0.0, 1e-3, 0.03, 1.0]),
    share=st.sampled_from([None, 0.0, 0.03, 0.5, 1.0]),
    room=st.sampled_from(ROOMS),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_sorting_everything(n, q, k, dim, spread, share, room, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n + q, dim)) * spread + rng.standard_normal(dim)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows, queries = rows[:n], rows[n:]
    allowed = None if share is None else rng.random(n) < share
    index = HalfIndex(ArrayRows(rows), Half(room[0]), resident=room[1])

    found = index.candidates(queries, k, Effort(), allowed)

    keep = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    exact = np.clip(queries.astype(np.float64) @ rows.astype(np.float64).T, -1, 1)
    want = -np.sort(-exact[:, keep], axis=1)[:, :k]
    assert found.dtype == np.int64 and found.shape == (q, k)
    assert (found[:, want.shape[1] :] == -1).all()
    for row, scores, expected in zip(found[:, : want.shape[1]], exact, want, strict=True):
        assert len(set(row)) == len(row) and np.isin(row, keep).all()
        np.testing.assert_allclose(scores[row], expected, atol=2e-7)


@pytest.mark.parametrize("room", ROOMS)
def test_rows_closer_than_the_format_can_tell_are_still_told_apart(room, monkeypatch):
    monkeypatch.setitem(torch_scan._SCORE_BYTES, "cpu", 1 << 14)
    rng = np.random.default_rng(1)
    towards = rng.standard_normal(32)
    rows = towards + 1e-4 * rng.standard_normal((3000, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = HalfIndex(ArrayRows(rows), Half(room[0]), resident=room[1])
    found = index.candidates(rows[:3], 5, Effort())
    exact = rows[:3].astype(np.float64) @ rows.astype(np.float64).T
    got = np.take_along_axis(exact, found, 1)
    np.testing.assert_allclose(got, -np.sort(-exact, axis=1)[:, :5], atol=1.5e-7)


def test_equals_the_float32_scan_on_clusters(monkeypatch):
    monkeypatch.setitem(torch_scan._SCORE_BYTES, "cpu", 1 << 18)
    made = clustered(20_000, 48)
    allowed = np.random.default_rng(0).random(20_000) < 0.3
    index = HalfIndex(made.rows, Half())
    asked: list[int] = []
    plain = index._scan.candidates
    monkeypatch.setattr(
        index._scan, "candidates", lambda q, *rest: asked.append(len(q)) or plain(q, *rest)
    )
    for barred in (None, allowed):
        found = index.candidates(made.queries, 10, Effort(), barred)
        want = ScanIndex(made.rows).candidates(made.queries, 10, Effort(), barred)
        scores = made.queries @ made.rows.matrix.T
        got, best = (np.take_along_axis(scores, p, 1) for p in (found, want))
        np.testing.assert_allclose(got, best, atol=3e-7)
    assert sum(asked) < len(made.queries) / 4, "the 16-bit scan answers most queries by itself"
    assert index.memory_bytes == 20_000 * 48 * 2


def test_many_copies_come_by_position():
    rows = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (5000, 1))
    found = HalfIndex(ArrayRows(rows), Half()).candidates(rows[:2], 4, Effort())
    assert found.tolist() == [[0, 1, 2, 3]] * 2


def test_what_is_missing_says_what_helps(monkeypatch):
    assert TorchScan("cpu").missing() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in TorchScan("cuda").missing()
    assert TorchScan().missing() is None
    monkeypatch.setattr(torch_scan, "find_spec", lambda name: None)
    assert "pip install torch" in TorchScan().missing()


def test_float32_where_16_bits_are_not_faster(tmp_path, monkeypatch):
    rows = ArrayRows(np.eye(4, dtype=np.float32))
    for fast, kind in ((False, ScanIndex), (True, HalfIndex)):
        monkeypatch.setattr(torch_scan, "half_pays", lambda fast=fast: fast)
        index = TorchScan("cpu").open(tmp_path, rows)
        assert isinstance(index, kind)
        assert index.candidates(rows.matrix, 1, Effort()).ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [True, False])
def test_on_cuda(resident):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = clustered(20_000, 48)
    index = HalfIndex(made.rows, Half("float16", "cuda"), resident=resident)
    found = index.candidates(made.queries, 10, Effort())
    want = ScanIndex(made.rows).candidates(made.queries, 10, Effort())
    scores = made.queries @ made.rows.matrix.T
    got, best = (np.take_along_axis(scores, p, 1) for p in (found, want))
    np.testing.assert_allclose(got, best, atol=3e-7)
