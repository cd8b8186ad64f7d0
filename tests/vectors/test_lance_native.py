"""Lance's own indexes against the exact scan: built, filtered, grown and opened again."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import VectorIndexError
from retrieval.vectors.base import Effort
from retrieval.vectors.kinds import backend
from retrieval.vectors.lance_native import LanceNative
from retrieval.vectors.roaring import row_addresses
from tests.vectors.clusters import ArrayRows, clustered, recall, rescored, truth

KINDS = ("lance-ivf-pq", "lance-ivf-rq", "lance-ivf-hnsw-sq")
N = 3000


@pytest.fixture(scope="module")
def made():
    return clustered(N, 20, queries=300)


@pytest.fixture(scope="module", params=KINDS)
def built(request, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    kind = backend(request.param)
    kind.build(made.rows, folder)
    return kind, folder


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("share", [None, 0.3, 0.02])
def test_with_most_effort_it_finds_nearly_all(built, made, share):
    kind, folder = built
    allowed = None if share is None else np.random.default_rng(0).random(N) < share
    index = kind.open(folder, made.rows)
    assert list(index.efforts) == sorted(index.efforts) and index.memory_bytes > 0

    found = index.candidates(made.queries, 10, index.efforts[-1], allowed)

    assert found.dtype == np.int64 and len(found) == len(made.queries)
    for row in found:
        real = row[row >= 0]
        assert len(set(real)) == len(real) and (real < N).all()
        assert allowed is None or allowed[real].all()
    want = truth(made.rows, made.queries, 10, allowed)
    assert recall(rescored(made.rows, made.queries, found, 10), want) >= 0.97


def test_a_part_is_searched_as_thoroughly_as_all(built, made):
    kind, folder = built
    index = kind.open(folder, made.rows)
    allowed = np.random.default_rng(1).random(N) < 0.1
    reached = []
    for mask in (None, allowed):
        found = index.candidates(made.queries, 10, index.efforts[0], mask)
        found = rescored(made.rows, made.queries, found, 10)
        reached.append(recall(found, truth(made.rows, made.queries, 10, mask)))
    assert reached[1] >= reached[0] - 0.02


def test_more_is_asked_than_there_is(built, made):
    kind, folder = built
    index = kind.open(folder, made.rows)
    found = index.candidates(made.queries[:2], N + 5, index.efforts[-1])
    assert found.shape == (2, N)
    assert index.candidates(made.queries[:0], 3, index.efforts[0]).shape[0] == 0
    nothing = index.candidates(made.queries[:2], 3, index.efforts[0], np.zeros(N, bool))
    assert (nothing == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_grows_without_touching_what_was(kind, made, tmp_path):
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    for folder in (first, second, third):
        folder.mkdir()
    lance = LanceNative(kind)
    lance.build(ArrayRows(made.rows.matrix[:2000]), first)
    before = digests(first)
    lance.extend(first, ArrayRows(made.rows.matrix[:2500]), 2000, second)
    lance.extend(second, made.rows, 2500, third)

    assert digests(first) == before
    grown = lance.open(third, made.rows)
    allowed = np.arange(N) >= 1900
    for mask in (None, allowed):
        found = grown.candidates(made.queries, 10, grown.efforts[-1], mask)
        found = rescored(made.rows, made.queries, found, 10)
        assert recall(found, truth(made.rows, made.queries, 10, mask)) >= 0.96
    old = ArrayRows(made.rows.matrix[:2000])
    assert (lance.open(first, old).candidates(made.queries, 10, Effort(8, 2)) < 2000).all()
    with pytest.raises(VectorIndexError, match="build it again"):
        lance.open(first, made.rows)


@pytest.mark.parametrize("n", [0, 1, 255, 1023])
def test_few_rows_are_all_compared(n, made, tmp_path):
    rows = ArrayRows(made.rows.matrix[:n])
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    lance = LanceNative("lance-ivf-pq")
    lance.build(rows, first)
    index = lance.open(first, rows)
    found = index.candidates(made.queries, 10, index.efforts[0])
    assert (found == truth(rows, made.queries, 10)).all()
    lance.extend(first, made.rows, n, second)
    assert lance.open(second, made.rows).memory_bytes > 0


def test_says_what_is_wrong(tmp_path, made):
    with pytest.raises(VectorIndexError, match="lance-ivf-rq"):
        LanceNative("lance-ivf-xy")
    with pytest.raises(VectorIndexError, match="cannot read"):
        LanceNative("lance-ivf-rq").open(tmp_path, made.rows)


def test_files_that_vanish_are_an_error_of_the_index(built, made, tmp_path):
    kind, folder = built
    shutil.copytree(folder, tmp_path / "a")
    index = kind.open(tmp_path / "a", made.rows)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(VectorIndexError, match="cannot search IVF_"):
        index.candidates(made.queries, 10, index.efforts[-1])


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=3),
    share=st.sampled_from([0.0, 0.001, 0.06, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_row_addresses_can_be_read_by_the_rules_of_the_format(sizes, share, seed):
    rng = np.random.default_rng(seed)
    masks = [rng.random(size) < share for size in sizes]
    data = row_addresses(enumerate(masks))

    def number(at, kind):
        return int(np.frombuffer(data, kind, 1, at)[0])

    seen, at = {}, 4
    for _ in range(number(0, "<u4")):
        fragment, length = number(at, "<u4"), number(at + 4, "<u4")
        base, at = at + 8, at + 8 + length
        assert number(base, "<u4") == 12346
        containers, rows = number(base + 4, "<u4"), []
        for i in range(containers):
            key, count = number(base + 8 + 4 * i, "<u2"), number(base + 10 + 4 * i, "<u2") + 1
            body = base + number(base + 8 + 4 * containers + 4 * i, "<u4")
            if count <= 4096:
                low = np.frombuffer(data, "<u2", count, body)
            else:
                bits = np.frombuffer(data, np.uint8, 8192, body)
                low = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
            assert len(low) == count
            rows.append(low.astype(np.int64) + (key << 16))
        seen[fragment] = np.concatenate(rows)
    assert at == len(data)
    assert seen.keys() == {i for i, mask in enumerate(masks) if mask.any()}
    for i, rows in seen.items():
        np.testing.assert_array_equal(rows, np.flatnonzero(masks[i]))
