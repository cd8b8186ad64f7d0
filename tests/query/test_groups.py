"""Groups are stars around what stays, and what stays is what was asked for."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.query.duplicates.groups import members, stars
from retrieval.query.duplicates.policy import check_preferring, preferred

MOST = 12
graphs = st.lists(st.tuples(st.integers(0, MOST - 1), st.integers(0, MOST - 1)), max_size=40).map(
    lambda pairs: sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]})
)
contents_of_images = st.lists(st.integers(0, MOST - 1), min_size=1, max_size=30)


def ends(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@settings(deadline=None)
@given(graphs)
def test_groups_are_disjoint_and_every_member_has_a_pair_with_what_stays(pairs):
    found = stars(*ends(pairs))
    kept, gone = set(found.keep.tolist()), found.member.tolist()
    assert len(set(gone)) == len(gone) and not kept & set(gone)
    for keep, member, pair in zip(found.keep, found.member, found.pair, strict=True):
        assert pairs[pair] == (keep, member)


@settings(deadline=None)
@given(graphs)
def test_no_two_that_stay_have_a_pair_and_who_goes_goes_for_a_better_one(pairs):
    found = stars(*ends(pairs))
    gone = set(found.member.tolist())
    assert not [(a, b) for a, b in pairs if a not in gone and b not in gone]
    for keep, member in zip(found.keep, found.member, strict=True):
        others = {a for a, b in pairs if b == member and a not in gone}
        assert keep == min(others) < member


@settings(deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_changes_nothing(pairs, random):
    turned = [pair if random.random() < 0.5 else pair[::-1] for pair in pairs]
    random.shuffle(turned)
    plain, other = stars(*ends(pairs)), stars(*ends(turned))
    assert np.array_equal(plain.keep, other.keep) and np.array_equal(plain.member, other.member)


def test_a_chain_is_not_one_group():
    along = np.arange(20)
    found = stars(along[:-1], along[1:])
    assert found.keep.tolist() == list(range(0, 20, 2))
    assert found.member.tolist() == list(range(1, 20, 2))


@settings(deadline=None)
@given(contents_of_images, graphs, st.booleans())
def test_images_follow_their_contents(contents, pairs, same_bytes):
    held = set(contents)
    a, b = ends([pair for pair in pairs if set(pair) <= held])
    found = members(contents, a, b, same_bytes=same_bytes)
    first = {content: contents.index(content) for content in held}
    gone = found.member.tolist()
    assert len(set(gone)) == len(gone) and not set(gone) & set(found.keep.tolist())
    for keep, member, pair in zip(found.keep, found.member, found.pair, strict=True):
        assert first[contents[keep]] == keep < len(contents) and keep != member
        if pair < 0:
            assert same_bytes and contents[keep] == contents[member]
        else:
            assert {contents[keep], contents[member]} == {a[pair], b[pair]}
            assert keep < first[contents[member]]
    left = [c for at, c in enumerate(contents) if at not in set(gone)]
    assert not same_bytes or len(left) == len(set(left))
    assert not [pair for pair in zip(a, b, strict=True) if set(pair) <= set(left)]


def rows(**columns: list) -> pa.Table:
    count = len(columns["uri"])
    plain: dict[str, list] = {
        "image_id": list(range(count)),
        "content_hash": ["x"] * count,
        "width": [10] * count,
        "height": [10] * count,
        "size_bytes": [100] * count,
        "captured_at": [None] * count,
        "mtime_ns": [None] * count,
        "split": [None] * count,
    }
    table = pa.table({**plain, **columns})
    return table.set_column(
        table.column_names.index("captured_at"),
        "captured_at",
        table["captured_at"].cast(pa.timestamp("us")),
    )


def test_the_keep_policy_goes_by_its_rules_in_order():
    table = rows(
        uri=["/a/1", "/a/2", "/b/3", "/bb/4"],
        width=[10, 20, 10, 10],
        size_bytes=[100, 1, 200, 100],
        split=["train", None, "test", "train"],
    )
    assert preferred(table).tolist() == [1, 2, 0, 3]
    assert preferred(table, ["size"]).tolist() == [2, 0, 3, 1]
    assert preferred(table, ["folder:/b"]).tolist() == [2, 1, 0, 3]
    assert preferred(table, ["folder:/b/", "resolution"]).tolist() == [2, 1, 0, 3]
    assert preferred(table, ["split:train", "size"]).tolist() == [0, 3, 2, 1]


def test_what_the_rules_given_do_not_settle_the_default_ones_do():
    table = rows(uri=["/a/1", "/a/2", "/b/3"], width=[10, 20, 5], size_bytes=[300, 100, 200])
    assert preferred(table, ["folder:/a"]).tolist() == [1, 0, 2]
    assert preferred(table, ["oldest"]).tolist() == preferred(table).tolist() == [1, 0, 2]
    assert preferred(table, ["size"]).tolist() == [0, 2, 1]


def test_a_rule_that_prefers_nothing_is_refused():
    table = rows(uri=["/a/1", "/b/2"], split=["train", None])
    check_preferring(["size", "folder:/b", "split:train"], table)
    check_preferring(["folder:/c"], table.slice(0, 0))
    for rule in ("folder:/c", "split:test"):
        with pytest.raises(QueryError, match=f"{rule}' prefers none of the 2 images"):
            check_preferring(["size", rule], table)


def test_the_oldest_is_told_by_the_camera_else_by_the_file():
    day = 86_400 * 10**9
    table = rows(
        uri=["/now", "/camera", "/file", "/unknown"],
        captured_at=[datetime(2020, 1, 1), datetime(1970, 1, 3), None, None],
        mtime_ns=[0, 9 * day, day, None],
    )
    assert preferred(table, ["oldest"]).tolist() == [2, 1, 0, 3]


def test_a_rule_that_there_is_not_is_refused():
    table = rows(uri=["/a"])
    for rule in ("newest", "folder:", "split", "resolution:3", ""):
        with pytest.raises(QueryError, match="folder:PATH"):
            preferred(table, [rule])
    with pytest.raises(QueryError, match="list of rules"):
        preferred(table, "size")
