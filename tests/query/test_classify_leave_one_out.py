"""Leave-one-out from one self-join, against one search for every exemplar."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import FilterError, QueryError
from retrieval.query import Collection
from retrieval.query.classify import leave_one_out
from retrieval.query.classify.exemplars import gather
from retrieval.query.classify.intervals import accuracies
from retrieval.query.classify.trust import (
    calibration_error,
    conformal_border,
    minimum,
    reached,
    scaled,
    smoothed,
)
from retrieval.store import Store
from retrieval.types import Space

DIM = 12
SPACE = Space("s", "e", "w", "p", "cls", DIM, ("image",))


def clouds(seed: int, codes: np.ndarray) -> np.ndarray:
    """Unit vectors around one centre a class, well mixed."""
    rng = np.random.default_rng(seed)
    rows = np.random.default_rng(5).standard_normal((9, DIM))[codes]
    rows = rows + 1.2 * rng.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def made(place, labels, seed=0, **more) -> Collection:
    """A collection of images with these labels, in no order of their ids."""
    n = len(labels)
    codes = np.array([0 if label is None else hash_of(label) for label in labels])
    store = Store.create(place, [SPACE])
    fields = {"grade": pa.int64(), "good": pa.bool_(), "mass": pa.float64()}
    store.add_columns(pa.schema([(name, kind) for name, kind in fields.items()]))
    rows = {
        "image_id": np.random.default_rng(1).permutation(3 * n)[:n],
        "uri": [f"/{i}.jpg" for i in range(n)],
        "content_hash": [f"{i:032x}" for i in range(n)],
        "label": labels,
        "width": range(n),
        "vector_s": pa.FixedSizeListArray.from_arrays(pa.array(clouds(seed, codes).ravel()), DIM),
        **more,
    }
    store.upsert(pa.table(rows))
    return Collection(store)


def hash_of(label: str) -> int:
    return ord(label[0]) % 9


@pytest.fixture
def collection(tmp_path) -> Collection:
    rng = np.random.default_rng(2)
    labels = rng.choice(list("aaaaabbbbcccd"), 300).tolist()
    labels[7] = "only"
    labels = [None if i % 10 == 3 else label for i, label in enumerate(labels)]
    return made(tmp_path / "c", labels, grade=rng.integers(0, 3, 300), good=rng.random(300) > 0.5)


def naive(ids, rows, codes, classes, k, temperature, balanced):
    """The votes for each row by a search among all others, one at a time, in float64."""
    out = []
    for at in range(len(rows)):
        wide = rows.astype(np.float64)
        squares = np.einsum("ij,ij->i", wide, wide)
        exact = np.einsum("ij,j->i", wide, wide[at]) / np.sqrt(squares * squares[at])
        scores = exact.clip(-1, 1).astype(np.float32)
        others = [i for i in np.lexsort((ids, -scores)).tolist() if i != at][:k]
        sizes = np.bincount(np.delete(codes, at), minlength=classes)
        total = np.zeros(classes)
        top = float(scores[others[0]])
        for i in others:
            total[codes[i]] += math.exp((float(scores[i]) - top) / temperature)
        total = total / np.maximum(sizes, 1) if balanced else total
        out.append(total / total.sum())
    return np.array(out)


@pytest.mark.parametrize("balanced", [False, True])
def test_one_self_join_says_what_a_search_for_each_says(collection, balanced):
    store = collection.store
    given = gather(store, collection.vectors("s"), "label", "width < 200")
    found = collection.evaluate_knn(where="width < 200", k=10, balanced=balanced, ks=(3, 10, 500))
    rows, n = store.vectors_of("s", given.ids), len(given.ids)
    assert n == found.exemplars == 180 and found.unlabelled == 20
    near = leave_one_out.near(given, 10)
    [told] = [part for _, part in leave_one_out.cast(given, near, 10, 0.07, balanced)]
    plain = naive(given.ids, rows, given.codes, 5, 10, 0.07, balanced)
    np.testing.assert_allclose(told, plain, rtol=1e-12, atol=1e-13)
    right = plain.argmax(axis=1) == given.codes
    assert found.accuracy.value == right.mean()
    recalls = [right[given.codes == c].mean() for c in range(5)]
    assert found.balanced_accuracy.value == pytest.approx(np.mean(recalls), abs=1e-12)
    assert [each.recall for each in found.classes] == pytest.approx(recalls, abs=1e-12)
    np.testing.assert_array_equal(found.confusion.sum(axis=1), np.bincount(given.codes))
    assert {(s.k, s.temperature) for s in found.sweep} == {
        (k, t) for k in (3, 10, n - 1) for t in leave_one_out.TEMPERATURES
    }
    for setting in found.sweep:
        args = given.ids, rows, given.codes, 5, setting.k, setting.temperature, balanced
        assert setting.accuracy == (naive(*args).argmax(axis=1) == given.codes).mean()
    assert found.best.accuracy == max(s.accuracy for s in found.sweep)


def test_a_sample_is_searched_as_the_self_join_finds(collection):
    given = gather(collection.store, collection.vectors("s"), "label", None)
    near, sample = leave_one_out.near(given, 20), leave_one_out.near_of_sample(given, 20, 0)
    np.testing.assert_array_equal(near.scores, sample.scores)
    np.testing.assert_array_equal(near.codes, sample.codes)


def test_a_piece_at_a_time_is_the_same(collection, monkeypatch):
    whole = collection.evaluate_knn(balanced=True)
    monkeypatch.setattr(leave_one_out, "_CELLS", 37)
    monkeypatch.setattr(leave_one_out, "SAMPLE", 10_000)
    assert collection.evaluate_knn(balanced=True).as_json() == whole.as_json()


def test_twins_and_loners_are_counted(tmp_path):
    labels = ["a", "b"] * 40 + ["lonely"]
    hashes = [f"{max(i, 5):032x}" for i in range(81)]
    found = made(tmp_path / "c", labels, content_hash=hashes).evaluate_knn()
    assert found.twins == 6 and found.alone == 1
    assert found.classes[2].recall == 0 and found.classes[2].precision is None
    wrong = round((1 - found.accuracy.value) * 81)
    assert found.accuracy_without_twins.value <= 1
    assert 75 - wrong <= round(found.accuracy_without_twins.value * 75) <= 81 - wrong


def test_any_column_of_labels_serves(collection):
    assert [c.label for c in collection.evaluate_knn("good").classes] == [False, True]
    assert [c.label for c in collection.evaluate_knn("grade").classes] == [0, 1, 2]


def test_what_tells_no_classes_is_refused(collection, tmp_path):
    with pytest.raises(QueryError, match=r"no column 'colour'.*label"):
        collection.evaluate_knn("colour")
    with pytest.raises(QueryError, match="'mass' holds double: labels are text"):
        collection.evaluate_knn("mass")
    with pytest.raises(QueryError, match="only the class 'a'"):
        collection.evaluate_knn(where="label = 'a'")
    with pytest.raises(QueryError, match=r"no class with exemplars.*20 of 20 images have no label"):
        collection.evaluate_knn(where="label is null and width < 200")
    with pytest.raises(QueryError, match="no image to learn from"):
        collection.evaluate_knn(where="width > 1000")
    with pytest.raises(FilterError):
        collection.evaluate_knn(where="colour = 1")
    for bad in ({"k": 0}, {"ks": ()}, {"ks": (0,)}):
        with pytest.raises(QueryError, match="at least 1"):
            collection.evaluate_knn(**bad)
    with pytest.raises(QueryError, match="above 0"):
        collection.evaluate_knn(temperature=0)
    empty = Collection(Store.create(tmp_path / "empty", [SPACE]))
    with pytest.raises(QueryError, match="no image to learn from"):
        empty.evaluate_knn()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_intervals_hold_the_value(sizes, data):
    right = [data.draw(st.integers(0, size)) for size in sizes]
    if not sum(sizes):
        return
    found = accuracies(np.array(right), np.array(sizes), 0)
    shares = [r / s for r, s in zip(right, sizes, strict=True) if s]
    assert [f.value for f in found] == pytest.approx([sum(right) / sum(sizes), np.mean(shares)])
    assert all(0 <= f.low <= f.value + 1e-9 and f.value - 1e-9 <= f.high <= 1 for f in found)


def test_an_interval_is_as_wide_as_the_binomial():
    [found, _] = accuracies(np.array([700]), np.array([1000]), 0)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert found.low == pytest.approx(0.7 - half, abs=0.004)
    assert found.high == pytest.approx(0.7 + half, abs=0.004)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.05, 0.99))
def test_the_border_covers_what_it_promises(misfits, coverage):
    border = conformal_border(np.array(misfits), coverage)
    inside = sum(value <= border for value in misfits)
    if math.isinf(border):
        assert (len(misfits) + 1) * coverage > len(misfits)
    else:
        assert inside >= (len(misfits) + 1) * coverage - 1e-6
        assert sum(value < border for value in misfits) < (len(misfits) + 1) * coverage


def test_conformal_sets_keep_their_promise_on_average():
    """Over many draws, of calibration and one new value, at least the promised share is inside."""
    rng = np.random.default_rng(0)
    drawn = rng.random((20_000, 20))
    inside = [row[-1] <= conformal_border(row[:-1], 0.8) for row in drawn]
    assert 0.79 <= np.mean(inside) <= 0.81  # (n + 1) · 0.8 = 16 is whole: exactly 0.8


@given(st.integers(1, 40), st.integers(2, 6), st.floats(0.06, 15))
def test_confidence_keeps_the_order_of_classes(k, classes, tau):
    rng = np.random.default_rng(k)
    found = rng.dirichlet(np.full(classes, 0.3), 5)
    told = scaled(smoothed(found, k), tau)
    np.testing.assert_allclose(told.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(told.argmax(axis=1), found.argmax(axis=1))


def test_the_least_loss_is_found():
    for at in (0.1, 0.85, 4.0):
        assert minimum(lambda tau, at=at: math.log(tau / at) ** 2) == pytest.approx(at, rel=1e-4)


def test_calibration_error_is_the_gap():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.3])
    right = np.array([True, True, False, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.4 + 2 * 0.3) / 6)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1), st.floats(0.1, 1))
def test_the_confidence_to_answer_from_reaches_the_accuracy(pairs, accuracy):
    confidence = np.array([c / 5 for c, _ in pairs])
    right = np.array([r for _, r in pairs])
    border = reached(confidence, right, accuracy)
    fits = [c for c in set(confidence.tolist()) if right[confidence >= c].mean() >= accuracy]
    assert border == min(fits, default=math.inf)
