"""What scores are worth: properties on made-up vectors, verdicts on real photos and words."""

from __future__ import annotations

import csv
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.encoders import load
from retrieval.encoders.base import unit_rows
from retrieval.images import load as load_image
from retrieval.query import background as backgrounds
from retrieval.query.relevance import FEWEST, calibrate_images, calibrate_texts
from tests.encoders_of_tests import ColourEncoder

DIM = 24


def rows(n: int, seed: int, towards: int | None = None, pull: float = 0.0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((n, DIM))
    if towards is not None:
        made[:, towards] += pull
    return unit_rows(made)


SAMPLE = rows(300, 0, towards=0, pull=3)
TEXTS = calibrate_texts(SAMPLE, rows(80, 1, 1, 3), rows(60, 2, 1, 3))
IMAGES = calibrate_images(SAMPLE)
KINDS = pytest.mark.parametrize("calibration", [TEXTS, IMAGES], ids=["texts", "images"])


def ask(calibration, seed: int, k: int, size: int = 300):
    query = rows(1, seed, 1, 3)[0]
    scores = SAMPLE @ query
    best = np.argsort(-scores)[:k]
    return query, SAMPLE[best], scores[best], size


@KINDS
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(3, 10_000), k=st.integers(1, 12), size=st.integers(12, 10**8))
def test_relevance_is_bounded_repeatable_and_blind_to_order(calibration, seed, k, size):
    query, vectors, scores, size = ask(calibration, seed, k, size)
    judged = calibration.judge(query, vectors, scores, size)
    again = calibration.judge(query, vectors[::-1], scores[::-1], size)
    assert judged.relevance.dtype == np.float32 and judged.relevance.shape == (k,)
    assert np.all((judged.relevance >= 0) & (judged.relevance <= 1))
    assert 0 <= judged.overall <= 1
    border = [judged.overall >= 0.5, judged.overall >= 0.75]
    assert judged.verdict == ("no good match", "weak match", "good match")[sum(border)]
    assert again.verdict == judged.verdict
    np.testing.assert_allclose(again.relevance[::-1], judged.relevance, atol=1e-5)
    np.testing.assert_array_equal(
        calibration.judge(query, vectors, scores, size).relevance, judged.relevance
    )


@KINDS
@given(seed=st.integers(3, 10_000), low=st.floats(-1, 1), high=st.floats(-1, 1))
def test_relevance_of_an_image_grows_with_its_score(calibration, seed, low, high):
    query, vectors, _, size = ask(calibration, seed, 1)
    low, high = sorted((low, high))
    judged = [calibration.judge(query, vectors, np.float32([score]), size) for score in (low, high)]
    assert judged[0].relevance[0] <= judged[1].relevance[0]
    assert judged[0].overall <= judged[1].overall


@KINDS
def test_the_same_best_score_says_less_among_more_images(calibration):
    query, vectors, scores, _ = ask(calibration, 5, 8)
    relevance = [
        calibration.judge(query, vectors, scores, size).relevance for size in (300, 30_000, 10**7)
    ]
    assert np.all(relevance[0] > relevance[1]) and np.all(relevance[1] > relevance[2])


def test_a_hub_is_worth_less_than_an_image_that_is_near_to_few_queries():
    background = rows(80, 1, 1, 3)
    hub, other = unit_rows(np.eye(DIM)[[1, 2]] + 0.1)
    calibration = calibrate_texts(SAMPLE, background, background)
    judged = calibration.judge(
        rows(1, 9)[0], np.stack([hub, other]), np.float32([0.4, 0.4]), len(SAMPLE)
    )
    assert judged.relevance[0] < judged.relevance[1]
    assert judged.over_queries[0] < judged.over_queries[1]
    assert judged.over_images[0] == judged.over_images[1]


def test_a_hit_stands_where_it_does_among_others_but_itself():
    query, vectors, scores, _ = ask(IMAGES, 7, 5)
    judged = IMAGES.judge(query, vectors, scores, len(SAMPLE))
    among = SAMPLE @ query
    np.testing.assert_allclose(judged.over_images, (scores - among.mean()) / among.std(), rtol=1e-3)
    for at, (vector, score) in enumerate(zip(vectors, scores, strict=True)):
        others = SAMPLE @ vector
        others = others[others < 0.9999]
        assert len(others) == len(SAMPLE) - 1
        expected = (score - others.mean()) / others.std()
        assert judged.over_queries[at] == pytest.approx(expected, rel=1e-3)


def test_no_more_than_stated_of_the_unanswerable_pass_in_unseen_collections():
    nothing, unseen = rows(300, 2, 1, 3), rows(1000, 3, 1, 3)
    for size in (300, 3000):
        collection = rows(size, 4, 0, 3)
        calibration = calibrate_texts(collection[:300], rows(100, 5, 1, 3), nothing)
        scores = unseen @ collection.T
        best = np.argsort(-scores, axis=1)[:, :10]
        verdicts = [
            calibration.judge(query, collection[hits], row[hits], size).verdict
            for query, row, hits in zip(unseen, scores, best, strict=True)
        ]
        assert 0.01 < np.mean([verdict != "no good match" for verdict in verdicts]) < 0.12
        assert np.mean([verdict == "good match" for verdict in verdicts]) < 0.05


def test_a_picture_of_the_collection_and_its_near_copy_are_good_matches():
    for seed in range(50):
        stored = SAMPLE[seed]
        copy = unit_rows(stored[None] + 0.03 * rows(1, seed))[0]
        for query in (stored, copy):
            scores = SAMPLE @ query
            best = np.argsort(-scores)[:10]
            judged = IMAGES.judge(query, SAMPLE[best], scores[best], len(SAMPLE))
            assert judged.verdict == "good match"
            assert judged.relevance[0] > 0.75


def test_small_collections_and_empty_answers_are_not_judged():
    few = SAMPLE[: FEWEST - 1]
    assert calibrate_images(few) is None
    assert calibrate_texts(few, SAMPLE, SAMPLE) is None
    assert calibrate_images(SAMPLE[:FEWEST]) is not None
    nothing = np.empty((0, DIM), np.float32)
    assert TEXTS.judge(SAMPLE[0], nothing, np.empty(0, np.float32), 300) is None


def test_a_collection_of_one_picture_repeated_is_judged_without_a_crash():
    same = np.repeat(SAMPLE[:1], 60, axis=0)
    for calibration in (calibrate_images(same), calibrate_texts(same, SAMPLE, SAMPLE)):
        judged = calibration.judge(same[0], same[:5], np.ones(5, np.float32), 60)
        assert np.all(np.isfinite(judged.relevance)) and judged.verdict == "good match"


def test_background_texts_are_many_and_different():
    scenes, unanswerable = backgrounds.texts()
    together = [text.strip().lower() for text in (*scenes, *unanswerable)]
    assert len(scenes) >= 100 and len(unanswerable) >= 100
    assert len(set(together)) == len(together) and all(together)
    assert not any(text.startswith("#") for text in together)


class CountingEncoder(ColourEncoder):
    def __init__(self, weights_hash: str) -> None:
        self.weights_hash, self.calls = weights_hash, 0

    def encode_texts(self, texts):
        self.calls += 1
        seeds = [sum(text.encode()) for text in texts]
        return unit_rows(np.stack([np.random.default_rng(s).standard_normal(49) for s in seeds]))


def test_the_background_is_encoded_once_per_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path))
    encoder = CountingEncoder("one")
    first = backgrounds.background(encoder)
    second = backgrounds.background(encoder)
    assert encoder.calls == 1
    for old, new in zip(first, second, strict=True):
        np.testing.assert_array_equal(old, new)
    other = CountingEncoder("two")
    backgrounds.background(other)
    assert other.calls == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "other shape", "zeros", "text"])
def test_a_damaged_background_is_encoded_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path))
    encoder = CountingEncoder("one")
    whole = backgrounds.background(encoder)
    [path] = tmp_path.rglob("*.npy")
    data = path.read_bytes()
    if damage == "other shape":
        np.save(path, whole.scenes)
    elif damage == "zeros":
        np.save(path, np.zeros((sum(map(len, whole)), 49), np.float32))
    else:
        path.write_bytes({"empty": b"", "cut": data[:-9], "text": b"no array"}[damage])
    again = backgrounds.background(encoder)
    assert encoder.calls == 2
    np.testing.assert_array_equal(again.unanswerable, whole.unanswerable)


@pytest.fixture(scope="module")
def flickr(shared_data):
    """Every fifth test photo as the pocket encoder sees it, and one caption of each."""
    folder = shared_data("flickr8k")
    captions: dict[str, str] = {}
    with (folder / "captions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                captions.setdefault(row["image"], row["caption"])
    names = sorted(captions)[::5]
    encoder = load("pocket-text")
    photos = encoder.encode_images([load_image(folder / "images" / name) for name in names])
    return encoder, photos, [captions[name] for name in names]


def verdicts(encoder, photos, texts: list[str]) -> list[str]:
    calibration = calibrate_texts(photos, *backgrounds.background(encoder))
    out = []
    for query in encoder.encode_texts(texts):
        scores = photos @ query
        best = np.argsort(-scores)[:10]
        out.append(calibration.judge(query, photos[best], scores[best], len(photos)).verdict)
    return out


def test_captions_match_and_nonsense_does_not(flickr):
    encoder, photos, captions = flickr
    assert verdicts(encoder, photos, captions).count("no good match") <= 0.1 * len(captions)
    chance = random.Random(0)
    letters = [
        " ".join(
            "".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 8))) for _ in "xy"
        )
        for _ in range(100)
    ]
    assert verdicts(encoder, photos, letters).count("no good match") >= 85
    planted = [
        "the appellant waives any right to a trial by jury",
        "depreciation of intangible assets in the fourth quarter",
        "merge the pointer array into a hash table",
        "every bounded monotone sequence converges",
        "the ablative absolute in late Latin prose",
        "withholding tax on royalties paid abroad",
        "a polynomial of degree seven over a finite field",
        "amend clause four of the shareholder agreement",
    ]
    assert verdicts(encoder, photos, planted).count("no good match") >= 7


def test_a_strange_photo_does_not_match_and_a_stored_one_does(flickr, shared_data):
    encoder, photos, _ = flickr
    boards = sorted(shared_data("deeppcb").rglob("*_test.jpg"))[:20]
    assert boards
    strange = encoder.encode_images([load_image(path) for path in boards])
    calibration = calibrate_images(photos)

    def share_of_good(queries) -> float:
        good = 0
        for query in queries:
            scores = photos @ query
            best = np.argsort(-scores)[:10]
            judged = calibration.judge(query, photos[best], scores[best], len(photos))
            good += judged.verdict == "good match"
        return good / len(queries)

    assert share_of_good(photos) == 1
    assert share_of_good(strange) <= 0.1
