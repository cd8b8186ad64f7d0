"""Pairs of a collection, found at once or bit by bit, against comparing everything."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from retrieval.errors import QueryError, SpaceMismatch, UnknownSpace, VectorIndexError
from retrieval.query import Collection
from retrieval.query.duplicates import approximate, pairs
from retrieval.query.duplicates.census import census, shared
from retrieval.query.duplicates.comparer import Comparer
from retrieval.query.duplicates.pairs import find_pairs, pairs_between
from retrieval.query.duplicates.tiers import TIERS
from retrieval.query.view import View
from retrieval.store import Store
from tests.query.pairs_child import (
    SMALL,
    SPACE,
    check,
    collapsed,
    filled,
    hash_of,
    new,
    put,
    scored,
    truth,
    unit,
)

POOL = unit(3, 24, 0.2)


@pytest.fixture
def joins(monkeypatch):
    """Where each join of a collection with itself began, and how many rows it had."""
    seen, real = [], pairs.join.pairs_above

    def watched(rows, threshold, **more):
        seen.append((more["start"], rows.shape[0]))
        return real(rows, threshold, **more)

    monkeypatch.setattr(pairs.join, "pairs_above", watched)
    return seen


@pytest.fixture
def looks(monkeypatch):
    """All pairs that were looked at."""
    seen, real = [], Comparer.compare

    def watched(self, a, b):
        seen.extend(zip(a.tolist(), b.tolist(), strict=True))
        return real(self, a, b)

    monkeypatch.setattr(Comparer, "compare", watched)
    return seen


@pytest.mark.parametrize("index", ["exact", None])
def test_pairs_are_those_of_brute_force(tmp_path, index):
    images = filled(tmp_path / "c")
    collection, told = Collection(Store.open(tmp_path / "c")), []
    if index:
        collection.build_index(SPACE, index)
    found = find_pairs(
        collection, SPACE, 0.9, memory_bytes=SMALL, tell=lambda *now: told.append(now)
    )
    assert len(found) > 100 and found.recall is None
    check(found, truth(images), 0.9)
    n = len(collapsed(images))
    assert told[-1] == (n + len(found), n + len(found)) and told == sorted(told)
    assert (n, n) in told and len(told) > 4


steps = st.one_of(
    st.tuples(st.sampled_from(["add", "change"]), st.integers(0, 30), st.integers(0, 23)),
    st.tuples(st.just("twin"), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("move"), st.integers(0, 30), st.integers(0, 23)),
    st.tuples(st.sampled_from(["delete", "forget", "label"]), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("find"), st.sampled_from([0.3, 0.9, 0.97]), st.booleans()),
)


@settings(deadline=None, max_examples=15)
@given(st.lists(steps, max_size=12))
def test_bit_by_bit_is_as_at_once(program):
    with tempfile.TemporaryDirectory() as place:
        store = new(f"{place}/c")
        images = {i: (hash_of(i), POOL[i % 24]) for i in range(8)}
        put(store, images)
        collection = Collection(Store.open(f"{place}/c"))
        for step, one, other in [*program, ("find", 0.9, False)]:
            if step == "find":
                same(collection, images, one, "image_id < 15" if other else None)
            else:
                images = changed(store, images, step, one, other)


def changed(store, images, step, one, other):
    content, vector = images.get(one, ("", None))
    if step == "add" or (step == "change" and one in images):
        content, vector = hash_of((one, other)), POOL[other]
    elif step == "twin" and other in images:
        content, vector = images[other]
    elif step == "move":
        vector = POOL[other] if one in images else None
    elif step == "forget":
        vector = None
    elif step == "delete":
        store.delete([one])
        return {i: image for i, image in images.items() if i != one}
    if not content:
        return images
    put(store, {one: (content, vector)}, label=[step])
    return images | {one: (content, vector)}


def same(collection, images, threshold, where):
    # Two images of the same bytes that have different vectors: the lowest id's counts.
    found = find_pairs(collection, SPACE, threshold, where=where)
    asked = {}
    everything = collapsed(images)
    lowest = {}
    for i in sorted(images):
        lowest.setdefault(images[i][0], i)
    for i in sorted(images):
        if where is None or i < 15:
            vector = everything.get(lowest[images[i][0]])
            asked[i] = (images[i][0], None if vector is None else vector.astype(np.float32))
    check(found, truth(asked), threshold)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(collection.uri, f"{copy}/c", ignore=shutil.ignore_patterns("indexes"))
        fresh = find_pairs(Collection(Store.open(f"{copy}/c")), SPACE, threshold, where=where)
    assert scored(found) == scored(fresh), "kept scores are those that are computed"
    assert found.tiers.tolist() == fresh.tiers.tolist() and found.whys == fresh.whys


def test_only_what_is_new_is_compared(tmp_path, joins, looks):
    images = filled(tmp_path / "c")
    store, n = Store.open(tmp_path / "c"), len(collapsed(images))
    first = find_pairs(Collection(store), SPACE, 0.9)
    assert len(looks) == len(first)

    def again(threshold=0.9, where=None):
        looks.clear()
        joins.clear()
        found = find_pairs(Collection(Store.open(tmp_path / "c")), SPACE, threshold, where=where)
        if where is None:
            check(found, truth(images), threshold)
        return found

    assert len(again()) == len(first) and not looks and not joins
    assert 0 < len(again(0.95)) < len(first) and not looks and not joins

    fresh = {1000 + i: (hash_of(1000 + i), v) for i, v in enumerate(unit(8, 7))}
    put(store, fresh)
    images |= fresh
    new_pairs = len(again()) - len(first)
    assert joins == [(n, n + 7)] and new_pairs == len(looks) > 0
    assert all(max(pair) >= 1000 for pair in looks)

    found = again(where="image_id < 100")
    assert len(found) and found.b.max() < 100 and not looks and not joins
    put(store, {2000: (hash_of(2000), POOL[0])})
    images[2000] = (hash_of(2000), POOL[0])
    again(where="image_id < 100 or image_id = 2000")
    again()
    assert joins == [(n + 7, n + 8)], "a filtered run makes nothing known or forgotten"

    seen = len(again())
    assert len(again(0.8)) - seen == len(looks) and joins == [(0, n + 8)], "looks stay known"
    assert again(0.8) and not joins


def test_ten_thousand_times_the_same_bytes_are_one_picture(tmp_path):
    store, (vector, near, far) = new(tmp_path / "c"), (POOL[0], POOL[0] * 1, -POOL[0])
    put(store, {i: (hash_of("placeholder"), vector) for i in range(100, 10_100)})
    put(store, {7: (hash_of(7), near), 8: (hash_of(8), far), 9: ("", near), 10: ("", None)})
    put(store, {5: (hash_of("placeholder"), None), 11: ("", near)})
    found = find_pairs(Collection(store), SPACE, 0.99)
    assert list(scored(found)) == [(5, 7), (5, 9), (5, 11), (7, 9), (7, 11), (9, 11)]


def test_bytes_that_nobody_knows_are_not_the_same(tmp_path):
    store, far = new(tmp_path / "c"), unit(3, 24)
    contents = ["", "", None, None, hash_of(4), hash_of(4)]
    put(store, {i: (content, far[i]) for i, content in enumerate(contents)})
    counted = census(store)
    assert counted.contents.tolist() == [0, 1, 2, 3, 4, 4] and counted.repeated.tolist() == [4]
    assert shared(store, store, (counted, counted)) == [(4, 4)]


def test_nothing_and_next_to_nothing_have_no_pairs(tmp_path):
    store = new(tmp_path / "c")
    assert len(find_pairs(Collection(store), SPACE, 0.5)) == 0
    put(store, {1: (hash_of(1), None)})
    assert len(find_pairs(Collection(store), SPACE, 0.5)) == 0
    put(store, {2: (hash_of(2), POOL[0])})
    found = find_pairs(Collection(store), SPACE, -1.0)
    assert len(found) == 0 and found.a.dtype == np.int64 and found.scores.dtype == np.float32
    assert len(pairs_between(Collection(store), Collection(new(tmp_path / "d")), SPACE, 0.5)) == 0


def webp(picture: Image.Image) -> bytes:
    kept = io.BytesIO()
    picture.copy().save(kept, "WEBP", quality=80)
    return kept.getvalue()


def test_pairs_say_what_pictures_have_in_common(tmp_path, looks):
    cat = Image.fromarray(data.chelsea()).resize((256, 170))
    cup = Image.fromarray(data.coffee()).resize((256, 170))
    again = io.BytesIO()
    cat.save(again, "JPEG", quality=50)
    pictures = [cat, Image.open(again), ImageOps.mirror(cat), cup]
    images = {i: (hash_of(i), POOL[0]) for i in range(4)}
    put(new(tmp_path / "c"), images, thumbnail=[webp(each) for each in pictures])
    for _ in range(2):
        found = find_pairs(Collection(Store.open(tmp_path / "c")), SPACE, 0.9)
        tiers = [TIERS[tier] for tier in found.tiers]
        assert tiers == ["copy", "edited", "concept", "edited", "concept", "concept"]
        assert "mirrored" in found.whys[1] and len(looks) == 6


def test_pairs_of_two_collections_are_those_of_brute_force(tmp_path):
    ours, theirs = filled(tmp_path / "a", 300), filled(tmp_path / "b", 250, seed=1)
    ours |= {500: (hash_of("both"), POOL[0]), 501: (hash_of("mine"), None), 502: (hash_of(1), None)}
    theirs |= {600: (hash_of("both"), -POOL[0]), 601: (hash_of("mine"), POOL[1])}
    put(Store.open(tmp_path / "a"), {i: ours[i] for i in (500, 501, 502)})
    put(Store.open(tmp_path / "b"), {i: theirs[i] for i in (600, 601)})
    left, right = (Collection(Store.open(tmp_path / name)) for name in "ab")
    found = pairs_between(left, right, SPACE, 0.9, memory_bytes=SMALL)
    true, exact = {}, {}
    for a, x in collapsed(ours).items():
        for b, y in collapsed(theirs).items():
            true[a, b] = float(x @ y)
    for a, (content, _) in ours.items():
        for b, (other, _) in theirs.items():
            if content == other and a % 10 != 9 and b % 10 != 9 and a != 502:
                exact[a, b] = 1.0 if true.get((a, b), 0) < 0.9 else true[a, b]
    assert (500, 600) in exact and (501, 601) in exact and len(exact) > 50
    check(found, true | exact, 0.9)
    for pair, tier, why in zip(scored(found), found.tiers, found.whys, strict=True):
        assert (TIERS[tier] == "exact") == (pair in exact)
        assert (why == "same bytes") == (pair in exact)
    some = pairs_between(left, right, SPACE, 0.9, where="image_id < 100")
    assert scored(some) == {p: s for p, s in scored(found).items() if max(p) < 100}


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch):
    filled(tmp_path / "a", 40)
    put(new(tmp_path / "b", "v"), {1: (hash_of(1), POOL[0])})
    left, right = (Collection(Store.open(tmp_path / name)) for name in "ab")
    with pytest.raises(SpaceMismatch, match="same encoder"):
        pairs_between(left, right, SPACE, 0.9)
    for threshold in (1.5, float("nan")):
        with pytest.raises(QueryError, match="cosine"):
            find_pairs(left, SPACE, threshold)
    with pytest.raises(UnknownSpace):
        find_pairs(left, "other", 0.9)
    with pytest.raises(VectorIndexError, match="--index auto"):
        find_pairs(left, SPACE, 0.9, approximate=True)
    find_pairs(left, SPACE, 0.5)
    put(Store.open(tmp_path / "a"), {100: (hash_of(100), POOL[0])})
    monkeypatch.setattr(pairs, "_MOST", 20)
    with pytest.raises(QueryError, match="higher threshold"):
        find_pairs(left, SPACE, 0.5)
    assert 0 < len(find_pairs(left, SPACE, 0.97)) <= 20, "a kept lower threshold is in nobody's way"
    left.build_index(SPACE, "exact")
    for first in (2, 1000):  # one neighbour after the other, and all at once
        monkeypatch.setattr(approximate, "_FIRST", first)
        with pytest.raises(QueryError, match="higher threshold"):
            find_pairs(left, SPACE, 0.5, approximate=True)
    assert 0 < len(find_pairs(left, SPACE, 0.97, approximate=True)) <= 20
    contents = pairs.with_contents([left], SPACE, None, lambda found: found)
    monkeypatch.setattr(approximate, "_FIRST", 2)
    near, rounds, real = approximate._Near(contents, contents.joined, -1.0, 20), [], View.search
    monkeypatch.setattr(View, "search", lambda *asked: rounds.append(1) or real(*asked))
    with pytest.raises(QueryError, match="higher threshold"):
        near.pairs(np.arange(len(contents.joined)))
    assert len(rounds) == 2, "no more neighbours are asked for than it takes to know"


@pytest.mark.parametrize("where", [None, "image_id < 300"])
def test_an_index_that_misses_nothing_finds_all_pairs(tmp_path, where, monkeypatch):
    monkeypatch.setattr(approximate, "_FIRST", 2)  # so that more is asked for, many times
    monkeypatch.setattr(approximate, "_QUERIES", 64)
    monkeypatch.setattr(approximate, "_MOST_PLACES", 512)
    filled(tmp_path / "c")
    collection = Collection(Store.open(tmp_path / "c"))
    collection.build_index(SPACE, "exact")
    put(Store.open(tmp_path / "c"), {i: (hash_of(i), v) for i, v in enumerate(unit(4, 30), 200)})
    likely = find_pairs(collection, SPACE, 0.9, where=where, approximate=True)
    every = find_pairs(collection, SPACE, 0.9, where=where)
    assert scored(likely) == scored(every) and likely.whys == every.whys
    assert likely.recall.share == 1.0 == likely.recall.high and 0.9 < likely.recall.low < 1
    assert likely.recall.checked >= 200
    assert find_pairs(collection, SPACE, 1.0, approximate=True).recall.checked <= 1


def test_the_recall_that_is_told_is_about_the_true_one(tmp_path):
    filled(tmp_path / "c", 2000)
    collection = Collection(Store.open(tmp_path / "c"))
    collection.build_index(SPACE, "exact")
    every = find_pairs(collection, SPACE, 0.9)
    contents = pairs.with_contents([collection], SPACE, None, lambda found: found)
    which = contents.joined
    a, b, scores = approximate.likely_pairs(contents, which, 0.9, most=10**6)
    assert len(a) == len(every)
    half = np.random.default_rng(0).random(len(a)) < 0.7
    told = approximate.measured(contents, which, 0.9, (a[half], b[half], scores[half]), SMALL)
    assert told.low < half.mean() < told.high and told.high - told.low < 0.2
    assert abs(told.share - half.mean()) < 0.1 and 200 <= told.checked < len(a)
    nothing = a[:0], b[:0], scores[:0]
    assert approximate.measured(contents, which, 0.9, nothing, SMALL).share == 0.0


def indexed(place: Path) -> Path:
    """A file of the index that is made."""
    Collection(Store.open(place)).build_index(SPACE, "exact")
    (part,) = Path(place).rglob("vectors.bin")
    return part


def damage(part: Path) -> None:
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)


def test_a_damaged_index_costs_time_and_no_pair(tmp_path):
    images = filled(tmp_path / "c")
    part = indexed(tmp_path / "c")
    collection = Collection(Store.open(tmp_path / "c"))
    damage(part)
    check(find_pairs(collection, SPACE, 0.9), truth(images), 0.9)


@pytest.mark.parametrize("broken", ["a", "b", "ab"])
def test_of_two_collections_the_damaged_one_loses_its_index(tmp_path, broken, monkeypatch):
    parts, sides, tries, real = {}, {}, [], pairs.join.pairs_between
    for name in "ab":
        filled(tmp_path / name, 200, seed=ord(name))
        parts[name] = indexed(tmp_path / name)
        sides[name] = Collection(Store.open(tmp_path / name))
    true = scored(pairs_between(sides["a"], sides["b"], SPACE, 0.95))

    def watched(*asked, **more):
        tries.append(1)
        return real(*asked, **more)

    monkeypatch.setattr(pairs.join, "pairs_between", watched)
    fresh = [Collection(Store.open(tmp_path / name)) for name in "ab"]
    for name in broken:
        damage(parts[name])
    found = pairs_between(*fresh, SPACE, 0.95)
    assert scored(found) == true and len(tries) == 2
    there = [bool(Collection(Store.open(tmp_path / name)).indexes(SPACE)) for name in "ab"]
    assert there == [name not in broken for name in "ab"]
