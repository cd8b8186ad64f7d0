"""Votes, against the formula written down again in plain Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.query.classify.votes import shares, votes

cosines = st.floats(-1, 1, width=32)


@st.composite
def neighbourhoods(draw):
    """Scores and classes of some neighbours of some queries; some are missing."""
    q, k, classes = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 5))
    scores = np.full((q, k), -np.inf, dtype=np.float32)
    codes = np.full((q, k), -1, dtype=np.int64)
    for row in range(q):
        some = draw(st.integers(1, k))
        scores[row, :some] = sorted(draw(st.lists(cosines, min_size=some, max_size=some)))[::-1]
        codes[row, :some] = draw(
            st.lists(st.integers(0, classes - 1), min_size=some, max_size=some)
        )
    return scores, codes, classes


def plain(scores, codes, classes, temperature, sizes):
    """Sum of exp(s / T) over the neighbours of each class, divided by the sum of all."""
    out = []
    for row, named in zip(scores.tolist(), codes.tolist(), strict=True):
        total = [0.0] * classes
        for score, code in zip(row, named, strict=True):
            if code >= 0:
                total[code] += math.exp(score / temperature) / (sizes[code] if sizes else 1)
        out.append([value / math.fsum(total) for value in total])
    return np.array(out)


@given(neighbourhoods(), st.sampled_from([0.02, 0.07, 0.5, 3.0]), st.booleans())
def test_votes_are_the_formula(some, temperature, balanced):
    scores, codes, classes = some
    sizes = [1 + 3 * code for code in range(classes)] if balanced else None
    found = votes(scores, codes, classes, temperature, sizes)
    np.testing.assert_allclose(
        found, plain(scores, codes, classes, temperature, sizes), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)


@given(neighbourhoods(), st.floats(1e-9, 1e3))
def test_any_temperature_gives_probabilities(some, temperature):
    scores, codes, classes = some
    found = votes(scores, codes, classes, temperature)
    assert np.isfinite(found).all() and (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(shares(scores, temperature).sum(axis=1), 1, rtol=0, atol=1e-12)


def test_a_frequent_class_does_not_win_by_number_alone():
    scores, codes = np.full((1, 4), 0.5), np.array([[1, 1, 1, 0]])
    assert votes(scores, codes, 2).argmax() == 1
    np.testing.assert_allclose(votes(scores, codes, 2, sizes=[1, 30]), [[10 / 11, 1 / 11]])


def test_equal_classes_are_told_apart_by_their_order():
    assert votes(np.zeros((1, 4)), np.array([[3, 1, 2, 1]]), 4).argmax() == 1
    assert votes(np.zeros((1, 4)), np.array([[3, 2, 2, 3]]), 4).argmax() == 2


def test_what_cannot_vote_is_refused():
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(QueryError, match="above 0"):
            votes(np.zeros((1, 1)), np.zeros((1, 1), int), 1, bad)
    for scores in (np.full((1, 2), -np.inf), np.full((1, 1), np.nan), np.zeros((2, 0))):
        with pytest.raises(QueryError, match="at least one neighbour"):
            votes(scores, np.zeros(scores.shape, int), 1)
