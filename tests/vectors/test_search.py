"""Filters of every selectivity and dead rows, on each path of the planner, against all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.types import Neighbors
from retrieval.vectors import search as planner
from retrieval.vectors.exact import nearest
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import backend
from retrieval.vectors.search import merge, search
from tests.vectors.clusters import clustered, recall

N, DIM = 2000, 16
KINDS = [kind for kind in ("exact", "ivf-flat", "rabitq") if backend(kind).missing() is None]
DATA = clustered(N, DIM, queries=24, seed=5)
QUERIES = DATA.queries
IDS = np.random.default_rng(3).permutation(3 * N)[:N].astype(np.int64)
"""Ids are not positions, and not in their order."""


class Watched:
    """An index that remembers how it was asked."""

    def __init__(self, index):
        self.index, self.asked = index, []

    def candidates(self, queries, k, effort, allowed=None):
        self.asked.append((k, None if allowed is None else int(allowed.sum())))
        return self.index.candidates(queries, k, effort, allowed)


@pytest.fixture(params=KINDS)
def opened(request, tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "_EXACT_BYTES", 4 * DIM * 50)  # fifty rows, one by one
    made = backend(request.param)
    made.build(DATA.rows, tmp_path)
    effort = {"exact": (0, 1), "ivf-flat": (4096, 1), "rabitq": (1, 4096)}[request.param]
    facts = {"kind": request.param, "version": 1, "effort": effort}
    index = Watched(made.open(tmp_path, DATA.rows))
    return OpenIndex(Path(tmp_path), facts, IDS.copy(), DATA.rows, index)


def truth(k, alive, allowed=None):
    """Scores and ids of the best rows, in float64."""
    keep = alive if allowed is None else alive & np.isin(IDS, allowed)
    scores = QUERIES.astype(np.float64) @ DATA.rows.matrix[keep].astype(np.float64).T
    best = np.argsort(-scores, axis=1)[:, :k]
    missing = ((0, 0), (0, k - best.shape[1]))
    ids = np.pad(IDS[keep][best], missing, constant_values=-1)
    top = np.pad(np.take_along_axis(scores, best, 1), missing, constant_values=-np.inf)
    return Neighbors(ids, top)


def same(found, true):
    assert np.array_equal(found.ids, true.ids)
    np.testing.assert_allclose(found.scores, true.scores, rtol=0, atol=1e-5)


def masks():
    """Allowed rows by name: at random, the clusters near the queries, and all but those."""
    near = np.isin(DATA.cluster, np.unique(DATA.cluster[nearest_rows()]))
    chance = np.random.default_rng(0).random(N)
    for share in (0.0005, 0.01, 0.1, 0.4, 0.6, 0.95):
        yield f"random {share}", chance < share
    yield "correlated", near
    yield "anti-correlated", ~near
    yield "nothing", np.zeros(N, dtype=bool)
    yield "everything", np.ones(N, dtype=bool)


def nearest_rows():
    return nearest([(np.arange(N), DATA.rows.matrix)], QUERIES[:4], 1).ids[:, 0]


MASKS = dict(masks())


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dead_share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("k", [1, 10])
def test_filtered_answers_are_those_of_a_scan(opened, name, dead_share, k):
    mask, dead = MASKS[name], np.random.default_rng(1).random(N) < dead_share
    allowed = np.sort(np.r_[IDS[mask], [10**9]])  # some ids the index has never heard of
    found = search(opened, QUERIES, k, dead=dead, allowed=allowed)
    same(found, truth(k, ~dead, allowed))
    left = int((mask & ~dead).sum())
    asked = opened.index.asked
    if left <= 50:
        assert asked == [], "few rows are compared one by one"
    elif left / N > planner._BROAD:
        assert asked[0][1] is None and asked[0][0] >= k * N / left, "more is asked for"
    else:
        assert asked == [(k, left)], "the index knows which rows count"


def test_every_path_of_the_planner_is_reached_by_these_masks():
    left = np.array([mask.sum() for mask in MASKS.values()])
    assert (left <= 50).any() and (left > N / 2).any() and ((left > 50) & (left <= N / 2)).any()
    assert 50 < MASKS["correlated"].sum() < N - 50


def test_dead_rows_are_never_answered_and_never_missed_for(opened):
    for share in (0.0, 0.2, 0.9, 1.0):
        dead = np.random.default_rng(2).random(N) < share
        same(search(opened, QUERIES, 10, dead=dead), truth(10, ~dead))
    near = truth(200, np.ones(N, dtype=bool)).ids
    dead = np.isin(IDS, near)  # everything that a query would find first
    same(search(opened, QUERIES, 10, dead=dead), truth(10, ~dead))


def test_more_is_asked_for_where_the_nearest_are_not_allowed(opened):
    """Of most rows that may be answered none is near the first query."""
    nearest_400 = truth(400, np.ones(N, dtype=bool)).ids[0]
    dead = np.isin(IDS, nearest_400)
    assert 1 - dead.mean() > planner._BROAD
    same(search(opened, QUERIES, 10, dead=dead), truth(10, ~dead))
    first = opened.index.asked[0]
    assert first[1] is None and first[0] < 400
    if opened.kind != "rabitq":  # which looks at nearly all rows at once
        assert len(opened.index.asked) > 1, "too little was left of the first answer"


def test_an_effort_below_the_most_still_finds_most_of_what_a_filter_leaves(opened):
    if opened.kind == "exact":
        pytest.skip("a scan knows one effort")
    tuned = {"ivf-flat": (8, 1), "rabitq": (1, 32)}[opened.kind]
    opened.facts["effort"] = tuned
    everything = np.ones(N, dtype=bool)
    without = recall(search(opened, QUERIES, 10).ids, truth(10, everything).ids)
    for name, mask in MASKS.items():
        allowed = np.sort(IDS[mask])
        found = search(opened, QUERIES, 10, allowed=allowed)
        assert np.isin(found.ids[found.ids >= 0], allowed).all()
        if mask.any():
            reached = recall(found.ids, truth(10, everything, allowed).ids)
            assert reached >= without - 0.07, name


def test_an_index_of_nothing_answers_nothing(tmp_path):
    rows = clustered(20, DIM).rows
    rows = type(rows)(rows.matrix[:0])
    facts = {"kind": "exact", "version": 1, "effort": (0, 1)}
    index = backend("exact").open(tmp_path, rows)
    empty = OpenIndex(tmp_path, facts, IDS[:0], rows, index)
    for allowed in (None, IDS[:3], IDS[:0]):
        found = search(empty, QUERIES, 3, allowed=allowed)
        assert (found.ids == -1).all() and np.isneginf(found.scores).all()
    assert empty.positions_of(IDS[:3]).tolist() == [-1, -1, -1]


def test_positions_are_those_of_living_ids():
    ids = np.array([7, -1, 3, 900, -1, 5])
    opened = OpenIndex(Path(), {}, ids, DATA.rows, None)
    wanted = np.array([3, 4, 5, 7, 900, 901, -5, 0])
    assert opened.positions_of(wanted).tolist() == [2, -1, 5, 0, 3, -1, -1, -1]
    assert opened.positions_of(wanted[:0]).tolist() == []


def test_two_answers_become_one_with_ties_by_id():
    one = Neighbors(np.array([[9, 2, -1]]), np.array([[0.5, 0.2, -np.inf]], np.float32))
    other = Neighbors(np.array([[4, 1, 8]]), np.array([[0.5, 0.3, 0.2]], np.float32))
    both = merge(one, other)
    assert both.ids.tolist() == [[4, 9, 1]]
    assert both.scores.tolist() == [[0.5, 0.5, np.float32(0.3)]]


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-rabitq", "hnsw"])
def test_more_neighbours_than_an_index_was_tuned_for_are_looked_for_further(kind, tmp_path):
    made = backend(kind)
    if why := made.missing():
        pytest.skip(why)
    made.build(DATA.rows, tmp_path)
    index = made.open(tmp_path, DATA.rows)
    facts = {"kind": kind, "version": 1, "effort": [index.efforts[0].probes, 4]}
    opened = OpenIndex(Path(tmp_path), facts, IDS.copy(), DATA.rows, index)
    for k in (50, 200, N):
        found = search(opened, QUERIES, k)
        assert (found.ids >= 0).all(), f"{k} were there to be found"
        true = truth(k, np.ones(N, dtype=bool))
        reached = found.scores >= true.scores[:, -1:] - 1e-5
        assert reached.mean() >= 0.8
    everything = search(opened, QUERIES, N).ids
    assert np.array_equal(np.sort(everything), np.broadcast_to(np.sort(IDS), everything.shape))


def test_one_deleted_row_does_not_double_the_work(opened):
    dead = np.zeros(N, dtype=bool)
    dead[7] = True
    wider = planner._effort(opened, planner.TUNED_FOR / (1 - dead.mean()))
    assert wider.probes == opened.effort.probes
