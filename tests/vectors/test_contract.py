"""What every kind of index promises, compared by value with the exact scan."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from retrieval.errors import VectorIndexError
from retrieval.vectors.base import Backend, Effort, VectorIndex
from retrieval.vectors.kinds import KINDS, backend
from retrieval.vectors.lance_native import LanceNative
from tests.vectors.clusters import ArrayRows, Clustered, clustered, recall, rescored, truth

N, DIM, K = 12_000, 64, 10
SLOW = [
    pytest.param(kind, marks=pytest.mark.slow) if kind.startswith(("torch", "lance")) else kind
    for kind in KINDS
]


class Built(NamedTuple):
    backend: Backend
    folder: Path
    index: VectorIndex
    effort: Effort


@pytest.fixture(scope="module")
def data() -> Clustered:
    return clustered(N, DIM, queries=48, seed=3)


@pytest.fixture(scope="module", params=SLOW)
def kind(request) -> Backend:
    """A kind that can be used here; the others are skipped with their own words."""
    try:
        made = backend(request.param)
    except ModuleNotFoundError as error:
        pytest.skip(f"{request.param}: {error}")
    reason = made.missing()
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return made


@pytest.fixture(scope="module")
def built(kind, data, tmp_path_factory) -> Built:
    """One index of all rows, and the cheapest of its efforts that finds 98 % without a filter."""
    folder = tmp_path_factory.mktemp("index")
    kind.build(data.rows, folder)
    index = kind.open(folder, data.rows)
    for effort in index.efforts:
        if quality(index, data, effort) >= 0.98:
            break
    return Built(kind, folder, index, effort)


def quality(index: VectorIndex, data: Clustered, effort: Effort, allowed=None) -> float:
    found = index.candidates(data.queries, K, effort, allowed)
    check_form(found, data.queries, allowed)
    wanted = truth(data.rows, data.queries, K, allowed)
    return recall(rescored(data.rows, data.queries, found, K), wanted)


def check_form(found, queries, allowed=None, n: int = N) -> None:
    assert found.dtype == np.int64 and found.ndim == 2 and len(found) == len(queries)
    assert found.min(initial=-1) >= -1 and found.max(initial=-1) < n
    for row in found:
        real = row[row >= 0]
        assert len(np.unique(real)) == len(real), "a position twice"
        if allowed is not None:
            assert allowed[real].all(), "a row that is not allowed"


def same_sets(some, others) -> None:
    assert len(some) == len(others)
    for row, other in zip(some, others, strict=True):
        assert set(row.tolist()) - {-1} == set(other.tolist()) - {-1}


def test_the_last_effort_finds_nearly_all_and_the_chosen_one_enough(built, data) -> None:
    efforts = built.index.efforts
    assert len(efforts) >= 1 and len(set(efforts)) == len(efforts)
    assert quality(built.index, data, efforts[-1]) >= 0.99
    assert quality(built.index, data, built.effort) >= 0.98
    assert quality(built.index, data, efforts[0]) <= quality(built.index, data, efforts[-1]) + 0.01


def test_a_row_finds_itself(built, data) -> None:
    rows = np.arange(0, N, 251)
    found = built.index.candidates(data.rows.take(rows), 1, built.index.efforts[-1])
    best = rescored(data.rows, data.rows.take(rows), found, 1)[:, 0]
    assert (best == rows).mean() >= 0.99


def test_queries_stay_as_they_are_and_none_is_fine(built, data) -> None:
    before = data.queries.copy()
    built.index.candidates(data.queries, K, built.effort, np.arange(N) % 3 == 0)
    np.testing.assert_array_equal(data.queries, before)
    for allowed in (None, np.arange(N) % 3 == 0):
        assert len(built.index.candidates(data.queries[:0], K, built.effort, allowed)) == 0


def test_one_query_gets_what_it_gets_among_many(built, data) -> None:
    together = built.index.candidates(data.queries, K, built.index.efforts[-1])
    alone = [built.index.candidates(q[None], K, built.index.efforts[-1])[0] for q in data.queries]
    many = rescored(data.rows, data.queries, together, K)
    one = rescored(data.rows, data.queries, np.stack(alone), K)
    assert recall(one, many) >= 0.99


@pytest.mark.parametrize("n", [0, 1, 2, 30, 700])
def test_few_rows_are_all_found_without_a_word(kind, n, tmp_path, capfd) -> None:
    few = clustered(max(n, 2), DIM, queries=5, seed=n)
    rows = ArrayRows(few.rows.matrix[:n])
    kind.build(rows, tmp_path)
    index = kind.open(tmp_path, rows)
    k = n + 7
    for allowed in (None, np.ones(n, dtype=np.bool_)):
        found = index.candidates(few.queries, k, index.efforts[-1], allowed)
        check_form(found, few.queries, allowed, n)
        assert recall(rescored(rows, few.queries, found, k), truth(rows, few.queries, k)) >= 0.99
    assert capfd.readouterr() == ("", "")


def test_no_allowed_row_or_one(built, data) -> None:
    allowed = np.zeros(N, dtype=np.bool_)
    assert (built.index.candidates(data.queries, K, built.effort, allowed) == -1).all()
    allowed[N // 2] = True
    found = built.index.candidates(data.queries, K, built.effort, allowed)
    check_form(found, data.queries, allowed)
    assert (found.max(axis=1) == N // 2).all()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_rows_allowed_at_random_are_found_as_well(built, data, share) -> None:
    allowed = np.random.default_rng(5).random(N) < share
    assert quality(built.index, data, built.effort, allowed) >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_rows_of_allowed_clusters_are_found_as_well(built, data, share) -> None:
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(data.cluster.max() + 1)
        sizes = np.bincount(data.cluster, minlength=len(order))[order].cumsum()
        allowed = np.isin(data.cluster, order[: np.searchsorted(sizes, share * N) + 1])
        assert quality(built.index, data, built.effort, allowed) >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_the_rows_farthest_from_the_query_are_found_as_well(built, data, share) -> None:
    reached = []
    for row, scores in enumerate(data.queries[:24] @ data.rows.matrix.T):
        allowed = np.zeros(N, dtype=np.bool_)
        allowed[np.argsort(scores)[: int(share * N)]] = True
        single = Clustered(data.rows, data.cluster, data.queries[row : row + 1])
        reached.append(quality(built.index, single, built.effort, allowed))
    assert np.mean(reached) >= 0.95


def test_everything_allowed_is_as_good_as_no_filter(built, data) -> None:
    assert quality(built.index, data, built.effort, np.ones(N, dtype=np.bool_)) >= 0.98


def test_an_extended_index_is_as_good_as_a_new_one(built, data, tmp_path) -> None:
    start = N - 1_500
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(), new.mkdir()
    built.backend.build(ArrayRows(data.rows.matrix[:start]), old)
    before = contents(old)
    built.backend.extend(old, data.rows, start, new)
    assert contents(old) == before, "the old index was touched"
    grown = built.backend.open(new, data.rows)
    assert quality(grown, data, grown.efforts[-1]) >= 0.99
    luck = 0.05 if isinstance(built.backend, LanceNative) else 0.02  # its training takes no seed
    assert quality(grown, data, built.effort) >= quality(built.index, data, built.effort) - luck
    late = np.arange(start, N, 13)
    found = grown.candidates(data.rows.take(late), 1, grown.efforts[-1])
    assert (rescored(data.rows, data.rows.take(late), found, 1)[:, 0] == late).mean() >= 0.99


def test_an_index_of_few_rows_grows_into_a_good_one(kind, data, tmp_path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(), new.mkdir()
    kind.build(ArrayRows(data.rows.matrix[:3]), old)
    kind.extend(old, data.rows, 3, new)
    grown = kind.open(new, data.rows)
    assert quality(grown, data, grown.efforts[-1]) >= 0.99


def test_opened_again_it_answers_the_same(built, data) -> None:
    answers_alike(built, built.backend.open(built.folder, data.rows), data)


def test_built_again_it_answers_the_same(built, data, tmp_path) -> None:
    if isinstance(built.backend, LanceNative):
        pytest.skip("Lance's training takes no seed")
    built.backend.build(data.rows, tmp_path)
    answers_alike(built, built.backend.open(tmp_path, data.rows), data)


def answers_alike(built, other, data) -> None:
    for effort in (built.index.efforts[0], built.effort):
        for mask in (None, np.arange(N) % 2 == 0):
            first = built.index.candidates(data.queries, K, effort, mask)
            same_sets(first, other.candidates(data.queries, K, effort, mask))


def test_many_threads_at_once_get_the_answers_of_one(built, data) -> None:
    masks = (None, np.arange(N) % 2 == 0, np.arange(N) % 5 == 0, data.cluster < 10)
    efforts = (built.index.efforts[0], built.effort, built.index.efforts[-1])
    asked = [(q[None], e, m) for q in data.queries[:12] for e in efforts for m in masks]
    fresh = built.backend.open(built.folder, data.rows)
    alone = [built.index.candidates(q, K, effort, mask)[0] for q, effort, mask in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda ask: fresh.candidates(ask[0], K, *ask[1:])[0], asked))
    same_sets(alone, together)


def test_what_it_holds_is_said(built) -> None:
    assert 0 <= built.index.memory_bytes < 4 * N * DIM * 12


def test_an_unknown_kind_is_an_error_that_lists_them_all() -> None:
    with pytest.raises(VectorIndexError, match="hnsw, ivf-flat"):
        backend("hnws")


def contents(folder: Path) -> dict[str, bytes]:
    return dict(files(folder))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
