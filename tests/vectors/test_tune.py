"""What an index is said to reach is what it reaches."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.vectors import tune
from retrieval.vectors.base import Effort
from retrieval.vectors.scan import ScanIndex
from retrieval.vectors.tune import K, Trial
from tests.vectors.clusters import ArrayRows, clustered, recall, rescored, truth


class Short:
    """Looks at the first dimensions only: a real index that misses, the less the more it looks."""

    memory_bytes = 0
    efforts = tuple(Effort(0, 2**power) for power in range(9))

    def __init__(self, rows, dims=10):
        self.rows, self.dims, self.asked = rows.matrix[:, :dims], dims, []

    def candidates(self, queries, k, effort, allowed=None):
        self.asked.append((len(queries), k))
        wanted = min(k * effort.factor, len(self.rows))
        return np.argpartition(-queries[:, : self.dims] @ self.rows.T, wanted - 1)[:, :wanted]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_scan_misses_nothing():
    rows = clustered(3000, 16).rows
    found = Trial(rows).measure(ScanIndex(rows), Effort())
    assert found.ann_recall_at_10 == found.high == 1.0 and 0.99 < found.low < 1.0
    assert found.queries == tune._QUERIES and found.latency_p95_ms >= found.latency_ms > 0


def test_rows_look_for_ten_others_and_strangers_for_ten():
    rows = clustered(500, 16).rows
    index = Short(rows)
    Trial(rows).measure(index, Effort(0, 1))
    assert index.asked[:2] == [(200, K + 1), (200, K)]


@pytest.mark.parametrize("n", [0, 1, 2, 5, 10, 11])
def test_of_few_rows_all_that_there_are_is_enough(n):
    rows = ArrayRows(clustered(20, 8).rows.matrix[:n])
    found = Trial(rows).measure(ScanIndex(rows), Effort())
    assert found.ann_recall_at_10 == 1.0 and np.isfinite(found.low) and found.queries == n


def test_rows_that_are_alike_are_as_good_as_each_other():
    apart = unit(np.random.default_rng(0).standard_normal((60, 16)))
    rows = ArrayRows(np.repeat(apart, 40, axis=0))  # each of 40 copies is a nearest neighbour

    class Backwards(ScanIndex):
        def candidates(self, queries, k, effort, allowed=None):
            n = len(rows.matrix)
            scores = np.round(queries @ rows.matrix.T, 5)
            return np.stack([np.lexsort((-np.arange(n), -some))[:k] for some in scores])

    found = Trial(rows).measure(Backwards(rows), Effort())
    assert found.ann_recall_at_10 == 1.0


def test_the_interval_holds_the_truth_of_all_queries(monkeypatch):
    """95 % intervals of 16 data sets at three efforts; fewer than 85 % would be no accident."""
    held = []
    for seed in range(16):
        rows = clustered(800, 24, seed=seed).rows
        index = Short(rows)
        monkeypatch.setattr(tune, "_TIMED", 1)
        monkeypatch.setattr(tune, "_QUERIES", 150)
        sample = Trial(rows)
        monkeypatch.setattr(tune, "_QUERIES", 800)
        every = Trial(rows)
        for effort in (Effort(0, 2), Effort(0, 8), Effort(0, 24)):
            said, true = sample.measure(index, effort), every.measure(index, effort)
            assert true.queries == 800 and said.queries == 150
            held.append(said.low <= true.ann_recall_at_10 <= said.high)
    assert len(held) == 48 and np.mean(held) >= 0.85


def test_a_target_that_is_reached_holds_for_queries_that_nobody_has_seen():
    reached = []
    for seed in range(6):
        data = clustered(1000, 24, queries=300, seed=100 + seed)
        index, trial = Short(data.rows), Trial(data.rows)
        chosen, tried = trial.tune(index, 0.95)
        assert chosen.low >= 0.95 and chosen == tried[-1]
        assert all(each.low < 0.95 for each in tried[:-1])
        assert [each.effort for each in tried] == list(Short.efforts[: len(tried)])
        candidates = index.candidates(data.queries, K, chosen.effort)
        found = rescored(data.rows, data.queries, candidates, K)
        reached.append(recall(found, truth(data.rows, data.queries, K)))
    assert np.mean(reached) >= 0.95 and min(reached) >= 0.93


def test_what_cannot_be_reached_gets_the_most_there_is():
    rows = clustered(800, 16).rows
    chosen, tried = Trial(rows).tune(Short(rows, dims=1), 2.0)
    assert chosen.effort == Short.efforts[-1] and len(tried) == len(Short.efforts)


def test_queries_of_another_kind_are_measured_too():
    data = clustered(800, 16)
    far = unit(np.random.default_rng(1).standard_normal((50, 16)))
    alone = Trial(data.rows).measure(Short(data.rows), Effort(0, 2))
    both = Trial(data.rows, far).measure(Short(data.rows), Effort(0, 2))
    assert both.queries == alone.queries + 50
    assert both.ann_recall_at_10 != alone.ann_recall_at_10
