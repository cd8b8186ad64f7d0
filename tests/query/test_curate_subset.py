"""Picks, against the plain greedy algorithms in float64."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import CollectionError, FilterError, QueryError
from retrieval.query import Collection
from retrieval.query.curate.candidates import Candidates, equal_shares
from retrieval.query.curate.coverage import coverage
from retrieval.query.curate.farthest import farthest
from retrieval.store import Store
from retrieval.types import Space

DIM = 10


def unit(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((9, DIM))[rng.integers(0, 9, n)] + rng.standard_normal((n, DIM)) / 2
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def candidates(seed: int, n: int, groups: int = 1, picks: int = 1) -> Candidates:
    member = np.random.default_rng(seed).integers(0, groups, n)
    quotas = equal_shares(np.bincount(member, minlength=groups), picks)
    return Candidates(np.arange(n), unit(seed, n), member, quotas)


def plain(given: Candidates, n: int, first: int | None) -> list[int]:
    """Every pick by looking at every candidate; farthest with a first pick, else coverage."""
    rows = given.rows.astype(np.float64)
    cosines = rows @ rows.T
    picks: list[int] = [] if first is None else [first]
    while len(picks) < n:
        taken = np.bincount(given.groups[picks], minlength=len(given.quotas))
        still = [
            at
            for at in range(len(rows))
            if at not in picks and taken[given.groups[at]] < given.quotas[given.groups[at]]
        ]
        if first is None:
            covered = np.maximum(cosines[:, picks].max(axis=1, initial=0), 0)
            score = [(np.maximum(cosines[:, at], covered) - covered).sum().round(4) for at in still]
        else:
            score = [-cosines[at, picks].max().round(5) for at in still]
        picks.append(still[int(np.argmax(score))])
    return picks


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_farthest_is_the_plain_algorithm(seed, groups):
    some = candidates(seed, 120, groups, 40)
    picks = farthest(some, 40, seed, None).tolist()
    assert picks == plain(some, 40, picks[0])
    assert len({int(farthest(some, 1, s, None)[0]) for s in range(20)}) > 5, "the seed decides"


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_coverage_is_the_plain_algorithm(seed, groups, monkeypatch):
    monkeypatch.setattr("retrieval.query.curate.coverage._ROWS", 50)
    monkeypatch.setattr("retrieval.query.curate.coverage._COLUMNS", 7)
    monkeypatch.setattr("retrieval.query.curate.coverage._AGAIN", 3)
    some = candidates(seed, 120, groups, 40)
    assert coverage(some, 40, None).tolist() == plain(some, 40, None)


def test_all_the_same_pictures_are_picked_in_the_order_of_their_ids():
    same = Candidates(
        np.arange(6), np.repeat(unit(0, 1), 6, axis=0), np.zeros(6, int), np.array([6])
    )
    assert coverage(same, 6, None).tolist() == list(range(6))
    assert sorted(farthest(same, 6, 0, None).tolist()) == list(range(6))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
@settings(max_examples=200)
def test_shares_are_as_equal_as_sizes_allow(sizes, data):
    n = data.draw(st.integers(0, sum(sizes)))
    shares = equal_shares(np.array(sizes), n)
    assert shares.sum() == n and (shares <= sizes).all() and (shares >= 0).all()
    short = shares[shares < sizes]  # groups that have more to give
    if len(short):
        assert shares.max() <= short.min() + 1
        extra = [s for s, share in zip(sizes, shares, strict=True) if share == shares.max()]
        less = [s for s, share in zip(sizes, shares, strict=True) if share < min(s, shares.max())]
        assert not less or min(extra) >= max(less), "what is left goes to the largest"


@pytest.fixture
def collection(tmp_path) -> Collection:
    n = 90
    store = Store.create(tmp_path / "c", [Space("s", "e", "w", "p", "cls", DIM, ("image",))])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(unit(3, n).ravel()), DIM)
    labels = [("a" if i < 60 else "b") if i % 9 else None for i in range(n)]
    uris = [f"/{i}.jpg" for i in range(n)]
    ids = np.random.default_rng(0).permutation(5 * n)[:n]
    rows = {"image_id": ids, "uri": uris, "label": labels, "width": range(n), "vector_s": flat}
    store.upsert(pa.table(rows))
    store.upsert(pa.table({"image_id": [9999], "uri": ["/no-vector.jpg"], "label": ["a"]}))
    return Collection(store)


@pytest.mark.parametrize("method", ["farthest", "coverage"])
def test_a_subset_is_of_whom_it_may_be(collection, method):
    picks = collection.subset(20, method=method, where="width < 80", per="label")
    records = collection.store.records(picks)
    assert len(set(picks.tolist())) == 20 and 9999 not in picks
    assert sorted(r.label for r in records) == ["a"] * 10 + ["b"] * 10
    assert all(r.width < 80 for r in records)
    again = collection.subset(20, method=method, where="width < 80", per="label")
    np.testing.assert_array_equal(picks, again)
    fewer = collection.subset(7, method=method)
    np.testing.assert_array_equal(fewer, collection.subset(30, method=method)[:7])


def test_a_column_says_who_was_picked(collection):
    picks = collection.subset(10, column="chosen")
    assert collection.store.ids("chosen = true").tolist() == sorted(picks.tolist())
    assert len(collection.store.ids("chosen = false")) == 81
    [made] = collection.status()["made"]
    assert made["made_by"] == "subset" and made["parameters"]["n"] == 10
    picks = collection.subset(5, seed=4, column="chosen")
    assert collection.store.ids("chosen = true").tolist() == sorted(picks.tolist())
    with pytest.raises(CollectionError, match="label"):
        collection.subset(5, column="label")


def test_what_cannot_be_picked_is_refused(collection):
    assert len(collection.subset(90)) == 90
    for n in (91, 0):
        with pytest.raises(QueryError, match=f"cannot pick {n} of 90"):
            collection.subset(n)
    with pytest.raises(QueryError, match="farthest and coverage"):
        collection.subset(3, method="best")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="no column 'colour'"):
        collection.subset(3, per="colour")
    with pytest.raises(FilterError):
        collection.subset(3, where="colour = 1")
