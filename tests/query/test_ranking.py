"""Orders other than by score: what they choose, and what they leave alone."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import retrieval
from indexers import ingest
from retrieval import Ranking, Term
from retrieval.errors import QueryError, UnknownSpace
from retrieval.query.ranking import blended, diverse, nearer, prototype
from tests.encoders_of_tests import ColourEncoder


def unit(rng, n, dim):
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(
    n=st.integers(1, 12),
    k=st.integers(1, 12),
    diversity=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_next_one_has_the_largest_marginal_relevance(n, k, diversity, seed):
    rng = np.random.default_rng(seed)
    vectors, values = unit(rng, n, 6), rng.random(n).astype(np.float32)
    chosen = diverse(vectors, values, k, diversity).tolist()
    assert len(chosen) == len(set(chosen)) == min(k, n)
    likeness = vectors @ vectors.T
    good = (values - values.min()) / (float(np.ptp(values)) or 1.0)
    low = likeness[np.argmax(good)].min()
    likeness = (likeness - low) / max(1 - low, 1e-6)
    for place, one in enumerate(chosen):
        marginal = np.array(
            [
                (1 - diversity) * good[i]
                - diversity * (max((likeness[i, j] for j in chosen[:place]), default=0.0))
                for i in range(n)
            ]
        )
        if place == 0:
            marginal = good
        others = [i for i in range(n) if i not in chosen[:place]]
        assert marginal[one] >= marginal[others].max() - 1e-5


def test_no_diversity_is_the_order_of_the_values():
    rng = np.random.default_rng(0)
    values = rng.random(20).astype(np.float32)
    assert diverse(unit(rng, 20, 8), values, 20, 0.0).tolist() == np.argsort(-values).tolist()


def test_a_large_pool_is_not_compared_all_with_all():
    rng = np.random.default_rng(0)
    vectors, values = unit(rng, 4000, 8), rng.random(4000).astype(np.float32)
    tracemalloc.start()
    try:
        diverse(vectors, values, 20, 0.5)
        assert tracemalloc.get_traced_memory()[1] < 4000 * 4000
    finally:
        tracemalloc.stop()


def test_feedback_moves_the_query_towards_what_is_liked_and_keeps_its_length():
    rng = np.random.default_rng(0)
    query, liked = unit(rng, 1, 8), unit(rng, 3, 8)
    moved = nearer(query, liked)
    assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-6)
    assert (liked @ moved.T).mean() > (liked @ query.T).mean()
    centre = liked.mean(axis=0) / np.linalg.norm(liked.mean(axis=0))
    expected = query[0] + 0.75 * centre
    np.testing.assert_allclose(moved[0], expected / np.linalg.norm(expected), atol=1e-6)


def test_a_prototype_lies_among_the_first_hits():
    rng = np.random.default_rng(0)
    vectors = unit(rng, 20, 16)
    vectors[:5] = unit(rng, 1, 16) + 0.1 * unit(rng, 5, 16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = (vectors @ prototype(vectors, np.linspace(1, 0, 20, dtype=np.float32)).T)[:, 0]
    assert set(np.argsort(-likeness)[:5]) == set(range(5))


def test_blending_counts_each_space_in_its_own_spread():
    first = np.array([0.9, 0.8, 0.7], np.float32)
    second = np.array([0.101, 0.102, 0.103], np.float32)  # as sure, on a smaller scale
    assert np.argsort(-blended(first, second, 0.4)).tolist() == [0, 1, 2]
    assert np.argsort(-blended(first, second, 0.6)).tolist() == [2, 1, 0]
    assert np.argsort(-blended(first, second, 0.0)).tolist() == [0, 1, 2]


class Brightness(ColourEncoder):
    """A second space: only how bright a picture is."""

    spec = replace(ColourEncoder.spec, name="brightness", dim=2, modalities=("image",))

    def encode_images(self, images):
        means = np.array([np.asarray(image.convert("L")).mean() / 255 for image in images])
        angle = means * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    for number in range(30):  # near-identical reds, and some others
        Image.new("RGB", (8, 8), (255, number // 3, 0)).save(folder / f"red{number:02}.png")
    for number in range(10):
        Image.new("RGB", (8, 8), (200, 20 * number, 100)).save(folder / f"mixed{number}.png")
    path = tmp_path_factory.mktemp("made") / "c"
    ingest(folder, path, encoders=[ColourEncoder(), Brightness()])
    return retrieval.open(path, encoders=[ColourEncoder(), Brightness()])


def test_scores_stay_exact_whatever_the_order(collection):
    plain = {h.image.image_id: h.score for h in collection.search("red", k=40)}
    for ranking in (Ranking(diversity=0.7), Ranking(rerank="brightness", rerank_weight=1.0)):
        hits = collection.search("red", k=10, ranking=ranking)
        assert [hit.rank for hit in hits] == list(range(1, 11))
        for hit in hits:
            assert hit.score == pytest.approx(plain[hit.image.image_id], abs=1e-6)


def test_diverse_hits_are_less_alike(collection):
    def likeness(hits):
        vectors = collection.store.vectors_of("colour", [hit.image.image_id for hit in hits])
        return float((vectors @ vectors.T).mean())

    plain = collection.search("red", k=6)
    varied = collection.search("red", k=6, ranking=Ranking(diversity=0.8))
    assert varied[0].image == plain[0].image
    assert likeness(varied) < likeness(plain) - 0.01


def test_a_second_space_can_decide_alone(collection):
    hits = collection.search("red", k=40, ranking=Ranking(rerank="brightness", rerank_weight=1.0))
    ids = [hit.image.image_id for hit in hits]
    vectors = collection.store.vectors_of("brightness", ids)
    first = [hit.image.image_id for hit in collection.search("red", k=40)]
    aimed = prototype(
        collection.store.vectors_of("brightness", first),
        np.array([h.score for h in collection.search("red", k=40)], np.float32),
    )
    likeness = (vectors @ aimed.T)[:, 0]
    assert (np.diff(likeness) <= 1e-6).all()


def test_feedback_filters_and_small_pools_work_together(collection):
    some = collection.search("red", k=3, where="uri like '%mixed%'", ranking=Ranking(feedback=2))
    assert len(some) == 3
    assert all("mixed" in hit.image.uri for hit in some)
    assert len(collection.search("red", k=100, ranking=Ranking(diversity=0.5))) == 40
    assert not collection.search("red", where="width > 9000", ranking=Ranking(0.5, feedback=3))


def test_templates_are_averaged(collection, monkeypatch):
    encoder = ColourEncoder()
    monkeypatch.setattr(
        type(encoder), "encode_texts", lambda self, texts: _looked_up(self, texts), raising=True
    )
    collection.use(encoder)
    found = collection.search("red", k=40, templates=["{}", "dark {}"])
    expected = _looked_up(encoder, ["red", "dark red"]).mean(axis=0)
    by_vector = collection.search(vector=expected, space="colour", k=40)
    assert [h.image.image_id for h in found] == [h.image.image_id for h in by_vector]


def _looked_up(encoder, texts):
    colours = {"red": (255, 0, 0), "dark red": (120, 0, 0)}
    return encoder.encode_images([Image.new("RGB", (4, 4), colours[text]) for text in texts])


@pytest.mark.parametrize(
    "wrong", [{"diversity": 1.5}, {"diversity": -0.1}, {"rerank_weight": 2}, {"feedback": -1}]
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(QueryError):
        Ranking(**wrong)


def test_wrong_names_and_templates_are_told(collection):
    with pytest.raises(UnknownSpace, match="sepia"):
        collection.search("red", ranking=Ranking(rerank="sepia"))
    with pytest.raises(QueryError, match="has no"):
        collection.search("red", templates=["a photo"])
    with pytest.raises(QueryError, match="list"):
        collection.search(terms=[Term("red")], templates="a photo of {}")
