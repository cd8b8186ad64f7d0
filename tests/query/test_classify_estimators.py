"""The scikit-learn estimator and the linear probe."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

import retrieval
from retrieval.errors import QueryError, SourceError, SpaceMismatch
from retrieval.query.classify.linear_probe import LinearProbe
from retrieval.query.classify.votes import votes
from retrieval.types import Space
from tests.query.test_classify_leave_one_out import clouds, made


def test_the_estimator_keeps_scikit_learns_conventions():
    outcomes = check_estimator(retrieval.KNNClassifier(k=5), on_fail=None, on_skip=None)
    failed = {
        one["check_name"]: str(one["exception"]) for one in outcomes if one["status"] == "failed"
    }
    assert failed == {} and sum(one["status"] == "passed" for one in outcomes) > 30


@pytest.mark.parametrize("balanced", [False, True])
def test_the_estimator_votes_as_the_formula_says(balanced):
    codes = np.random.default_rng(0).integers(0, 4, 200) ** 2 // 3
    rows = clouds(1, codes) * np.random.default_rng(2).uniform(0.1, 9, (200, 1))
    names = np.array(["d", "b", "c", "a"])
    fitted = retrieval.KNNClassifier(k=7, balanced=balanced).fit(rows[:150], names[codes[:150]])
    classes, own = np.unique(names[codes[:150]], return_inverse=True)
    np.testing.assert_array_equal(fitted.classes_, classes)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = unit[150:] @ unit[:150].T
    near = np.argsort(-scores, axis=1)[:, :7]
    sizes = np.bincount(own) if balanced else None
    told = votes(np.take_along_axis(scores, near, 1), own[near], len(classes), 0.07, sizes)
    np.testing.assert_allclose(fitted.predict_proba(rows[150:]), told, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(rows[150:]), classes[told.argmax(axis=1)])
    right = classes[told.argmax(axis=1)] == names[codes[150:]]
    assert fitted.score(rows[150:], names[codes[150:]]) == right.mean() > 0.4
    distances, at = fitted.kneighbors(rows[150:], 3)
    np.testing.assert_array_equal(at, near[:, :3])
    np.testing.assert_allclose(distances, 1 - np.take_along_axis(scores, near[:, :3], 1), atol=1e-6)


def test_fitted_rows_are_not_their_own_neighbours():
    rows = np.repeat(clouds(1, np.array([0, 1])), 3, axis=0)
    fitted = retrieval.KNNClassifier(k=20).fit(rows, [0, 0, 0, 1, 1, 1])
    at = fitted.kneighbors(return_distance=False)
    assert at.shape == (6, 5)
    for row, near in enumerate(at.tolist()):
        assert sorted([row, *near]) == list(range(6)) and {*near[:2]} <= {
            *range(row // 3 * 3, row // 3 * 3 + 3)
        }
    assert fitted.predict_proba(rows).sum(axis=1) == pytest.approx(1)


def test_numbers_that_make_no_sense_are_refused():
    rows = clouds(1, np.array([0, 1]))
    with pytest.raises(ValueError, match="at least 1"):
        retrieval.KNNClassifier(k=0).fit(rows, [0, 1])
    with pytest.raises(QueryError, match="above 0"):
        retrieval.KNNClassifier(temperature=0).fit(rows, [0, 1]).predict(rows)


@pytest.mark.parametrize("letters", ["ab", "abcd"])
def test_a_probe_is_the_regression_and_survives_saving(tmp_path, letters):
    labels = np.random.default_rng(0).choice(list(letters), 150).tolist()
    collection = made(tmp_path / "c", [*labels, None])
    probe = collection.linear_probe(cs=(0.1, 1.0))
    store = collection.store
    ids = store.ids("label is not null")
    rows, told = store.vectors_of("s", ids), [r.label for r in store.records(ids)]
    plain = LogisticRegression(C=probe.c, max_iter=1000).fit(rows, told)
    np.testing.assert_allclose(probe.predict_proba(rows), plain.predict_proba(rows), atol=1e-5)
    assert probe.predict(rows) == plain.predict(rows).tolist()
    assert 0.5 < probe.accuracy < 1 and probe.exemplars == 150
    probe.save(tmp_path / "probe")
    again = LinearProbe.load(tmp_path / "probe")
    assert again.facts() == probe.facts() and again.classes == probe.classes
    np.testing.assert_array_equal(again.predict_proba(rows), probe.predict_proba(rows))
    again.check(store.space("s"))
    with pytest.raises(SpaceMismatch, match="fit it again"):
        again.check(Space("s", "e", "other", "p", "cls", 12, ("image",)))
    with pytest.raises(QueryError, match="shape"):
        again.predict(rows[:, :5])


def test_a_damaged_probe_is_refused(tmp_path):
    collection = made(tmp_path / "c", list("ab") * 20)
    collection.linear_probe(cs=(1.0,)).save(tmp_path / "probe")
    facts = json.loads((tmp_path / "probe" / "probe.json").read_text())
    (tmp_path / "probe" / "probe.json").write_text(json.dumps(facts | {"classes": ["a"]}))
    with pytest.raises(SourceError, match="do not fit"):
        LinearProbe.load(tmp_path / "probe")
    (tmp_path / "probe" / "probe.safetensors").write_bytes(b"no")
    for place in ("probe", "nothing"):
        with pytest.raises(SourceError, match="holds no linear probe"):
            LinearProbe.load(tmp_path / place)


def test_a_class_of_one_cannot_be_validated(tmp_path):
    collection = made(tmp_path / "c", [*"ab" * 20, "c"])
    with pytest.raises(QueryError, match="one has: 'c'"):
        collection.linear_probe()
