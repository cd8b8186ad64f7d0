"""Anomaly scores: equal to slow and simple computations, and to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.encoders import EncoderSpec, PatchTokens, Preprocess, load
from retrieval.encoders.base import unit_rows
from retrieval.errors import EncoderError, QueryError
from retrieval.query.anomaly.detector import AnomalyDetector
from retrieval.query.anomaly.images import Normals, ledoit_wolf
from retrieval.query.anomaly.limits import fit_limit, held_out_scores
from retrieval.query.anomaly.patches import (
    PatchMap,
    coreset,
    nearest_distances,
    share_of,
    top_mean,
)
from retrieval.query.anomaly.tiling import places, tile_boxes
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture


def rows(seed: int, n: int, dim: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit_rows(rng.normal(size=(n, dim)) + 1.5)


def slow_distances(tokens, bank) -> list[float]:
    """Each token with each of the bank, one after the other."""
    far = []
    for token in tokens.astype(np.float64):
        cosines = [
            token @ other / (np.linalg.norm(token) * np.linalg.norm(other))
            for other in bank.astype(np.float64)
        ]
        far.append(1 - max(cosines))
    return far


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 30), m=st.integers(1, 60), memory=st.sampled_from([64, 900, 1 << 20]))
def test_patch_distances_are_those_of_brute_force_whatever_the_memory(n, m, memory):
    tokens, bank = rows(n, n), rows(m + 1000, m)
    found = nearest_distances(tokens, bank, memory_bytes=memory)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_distances(tokens, bank), atol=2e-6)


def test_a_picture_is_scored_as_if_the_bank_did_not_know_it():
    bank, owners = rows(0, 40), np.arange(40) % 4
    found = nearest_distances(bank[:9], bank, owners=owners, without=2, memory_bytes=900)
    np.testing.assert_allclose(found, slow_distances(bank[:9], bank[owners != 2]), atol=2e-6)
    assert found[0] < 1e-6 < found[2]
    alone = nearest_distances(bank[:3], bank[:1], owners=owners[:1], without=0)
    np.testing.assert_array_equal(alone, np.full(3, 2.0))


def test_the_score_is_the_mean_of_the_highest_hundredth():
    far = np.random.default_rng(0).permutation(np.linspace(0, 1, 784, dtype=np.float32))
    expected = sorted(far.tolist())[-8:]
    assert top_mean(far.reshape(28, 28)) == pytest.approx(sum(expected) / 8)
    assert top_mean(far[:49]) == pytest.approx(float(far[:49].max()))


def test_a_heatmap_has_the_size_of_the_picture_and_is_hot_where_the_patch_is():
    boxes = tile_boxes((90, 60), 2)
    far = np.zeros((len(boxes), 4, 4), dtype=np.float32)
    hot = PatchMap(far.copy(), boxes, (90, 60))
    hot.distances[0, 0, 0] = 1
    heat = hot.heatmap()
    assert heat.shape == (60, 90) and heat.dtype == np.float32
    assert np.unravel_index(heat.argmax(), heat.shape) <= (6, 6) and heat[30:, 45:].max() < 1e-6
    flat = PatchMap(far + np.float32(0.25), boxes, (90, 60))
    np.testing.assert_allclose(flat.heatmap(), 0.25, atol=1e-6)
    assert flat.score == pytest.approx(0.25)
    assert flat.sigma == pytest.approx(0.5 * 34 / 4, abs=0.2)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), tiles=st.integers(1, 4))
def test_tiles_cover_every_pixel(width, height, tiles):
    covered = np.zeros((height, width), dtype=bool)
    boxes = tile_boxes((width, height), tiles)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(boxes) <= 16 * tiles * tiles


def test_square_pictures_have_square_tiles():
    assert tile_boxes((640, 640), 1) == ((0, 0, 640, 640),)
    assert len(tile_boxes((640, 640), 3)) == 9
    assert {(r - x, b - t) for x, t, r, b in tile_boxes((640, 640), 3)} == {(256, 256)}
    assert len(tile_boxes((640, 480), 1)) == 2


class Seer(ColourEncoder):
    """Sees the mean colour of each quarter of what the resize and the cut leave."""

    spec = EncoderSpec(
        name="seer", family="test", dim=49, modalities=("image",), patch_px=8,
        preprocess=Preprocess(16, "shortest", 20, "box", (0.0,) * 3, (1.0,) * 3),
        pooling="none", source="tests", revision="1", licence="none", size_mb=0, summary="",
    )  # fmt: skip

    def encode_patches(self, images):
        pixels = self.spec.preprocess.inputs(images)["pixels"]
        means = pixels.reshape(len(images), 3, 2, 8, 2, 8).mean(axis=(3, 5))
        tokens = means.transpose(0, 2, 3, 1).reshape(len(images), 4, 3)
        return PatchTokens(tokens + 0.1, np.full((len(images), 2), 2, dtype=np.int64))


def test_what_an_encoder_cuts_off_is_added_before():
    corners = Image.new("RGB", (160, 160))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for at, colour in enumerate(colours):
        corners.paste(colour, (80 * (at % 2), 80 * (at // 2), 80 + 80 * (at % 2), 160))
    seen = places(Seer(), corners)
    assert seen.tokens.shape == (1, 2, 2, 3) and seen.size == (160, 160)
    expected = unit_rows(np.array(colours) / 255 + 0.1)
    np.testing.assert_allclose(seen.rows, expected, atol=0.01)


def test_pocket_encoders_show_their_middle_and_what_shows_nothing_is_told():
    encoder = load("pocket-visual")
    one = picture(1, (64, 48))
    seen = places(encoder, one, tiles=2)
    assert seen.tokens.shape == (len(tile_boxes((64, 48), 2)), 28, 28, 40)
    np.testing.assert_allclose(np.linalg.norm(seen.rows, axis=1), 1, atol=1e-5)
    whole = encoder.encode_middle([one.resize((224, 224))]).tokens[0]
    maps = encoder.trunk._graph.run(
        encoder.spec.preprocess.inputs([one.resize((224, 224))]), ["stage3"]
    )[0][0]
    np.testing.assert_allclose(
        whole.reshape(28, 28, 40)[5, 9], maps[:, 4:7, 8:11].mean(axis=(1, 2)), atol=1e-5
    )
    corner = maps[:, [0, 0, 1]][:, :, [0, 0, 1]].mean(axis=(1, 2))
    np.testing.assert_allclose(whole[0], corner, atol=1e-5)
    with pytest.raises(EncoderError, match="colour does not tell what is where"):
        places(ColourEncoder(), one)


def test_a_coreset_is_the_greedy_k_center():
    blocks = [rows(3, 30), rows(4, 50)]
    kept, owners = coreset(blocks, 12, seed=5)
    every = np.concatenate(blocks)
    picks = [int(np.random.default_rng(5).choice(80))]
    for _ in range(11):
        cosines = (every @ every[picks].T).max(axis=1)
        picks.append(int(np.argmin(cosines)))
    np.testing.assert_array_equal(kept, every[sorted(picks)])
    np.testing.assert_array_equal(owners, [int(at >= 30) for at in sorted(picks)])
    spread = nearest_distances(every, kept).max()
    assert spread < nearest_distances(every, every[:12]).max()
    everything, owners = coreset(blocks, None)
    assert len(everything) == 80 and owners.sum() == 50
    assert len(share_of(every, 2, 10, 0)) == 20 and share_of(every, 2, None, 0) is every


# whole images


def test_the_distance_is_to_the_kth_nearest_normal():
    normals, queries = rows(0, 40), rows(1, 7)
    far = np.sort(1 - queries.astype(np.float64) @ normals.T.astype(np.float64), axis=1)
    np.testing.assert_allclose(Normals(normals, k=4).score(queries), far[:, 3], atol=1e-12)
    np.testing.assert_allclose(Normals(normals[:2], k=4).score(queries).shape, (7,))
    assert Normals(normals[:1]).score(normals[:1]) == pytest.approx(0, abs=1e-6)


def test_the_density_ratio_is_the_local_outlier_factor():
    neighbors = pytest.importorskip("sklearn.neighbors")
    normals, queries = rows(0, 60), np.concatenate([rows(1, 9), -rows(2, 2)])
    peer = neighbors.LocalOutlierFactor(
        n_neighbors=5, metric="cosine", novelty=True, algorithm="brute"
    ).fit(normals.astype(np.float64))
    ours = Normals(normals, "density", 5).score(queries)
    np.testing.assert_allclose(ours, -peer.score_samples(queries.astype(np.float64)), rtol=1e-5)
    assert ours[:9].max() < ours[9:].min()


@pytest.mark.parametrize("n", [5, 40, 400])
def test_the_covariance_is_that_of_ledoit_and_wolf(n):
    covariance = pytest.importorskip("sklearn.covariance")
    normals, queries = rows(n, n), rows(1, 9)
    peer = covariance.LedoitWolf().fit(normals.astype(np.float64))
    centred = normals.astype(np.float64) - normals.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(ledoit_wolf(centred), peer.covariance_, atol=1e-12)
    expected = np.sqrt(peer.mahalanobis(queries.astype(np.float64)))
    np.testing.assert_allclose(Normals(normals, "mahalanobis").score(queries), expected, rtol=1e-6)


def test_too_few_normals_are_clear_errors():
    with pytest.raises(QueryError, match="no normal vector"):
        Normals(np.empty((0, 8), np.float32))
    with pytest.raises(QueryError, match="density needs two"):
        Normals(rows(0, 1), "density")
    with pytest.raises(QueryError, match="that differ"):
        Normals(np.repeat(rows(0, 1), 4, axis=0), "mahalanobis")
    with pytest.raises(QueryError, match="no method 'knn'"):
        Normals(rows(0, 3), "knn")
    with pytest.raises(QueryError, match="k is at least 1"):
        Normals(rows(0, 3), k=0)


# thresholds


def test_the_threshold_is_the_conformal_rank_or_says_what_it_can_promise():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 40))
    limit = fit_limit(scores, 0.05)
    assert (limit.threshold, limit.false_alarm_rate, limit.note) == (38.0, 0.05, "")
    assert limit.exceeded(38.5) is True and limit.exceeded(38.0) is False
    assert fit_limit(scores[:19], 0.05).note == ""
    few = fit_limit([0.1, 0.3, 0.2], 0.05)
    assert few.threshold == 0.3 and few.false_alarm_rate == 0.25
    assert "0.250 at best" in few.note and "needs 19" in few.note
    one = fit_limit([], 0.05)
    assert one.threshold is None and one.exceeded(1.0) is None and "too few" in one.note
    for rate in (0, 1, -1, float("nan")):
        with pytest.raises(QueryError, match="between 0 and 1"):
            fit_limit(scores, rate)


def test_new_normals_are_called_odd_as_often_as_promised():
    alarms = []
    for seed in range(200):
        drawn = rows(seed, 60)
        limit = fit_limit(held_out_scores(drawn[:30], "distance", 3), 0.1)
        alarms += (Normals(drawn[:30]).score(drawn[30:]) > limit.threshold).tolist()
    assert 0.06 < np.mean(alarms) < 0.105


@pytest.mark.parametrize("method", ["distance", "density", "mahalanobis"])
def test_each_normal_is_held_out_of_its_own_score(method):
    normals = rows(0, 12)
    expected = [
        Normals(np.delete(normals, at, axis=0), method, 3).score(normals[[at]])[0]
        for at in range(12)
    ]
    np.testing.assert_allclose(held_out_scores(normals, method, 3), expected)
    assert held_out_scores(normals[:1], method, 3) == []
    assert len(held_out_scores(rows(1, 75), method, 3)) == 75


def test_the_detector_keeps_scikit_learns_conventions():
    base = pytest.importorskip("sklearn.base")
    normals, odd = rows(0, 60), -rows(1, 5)
    detector = AnomalyDetector("density", 4, 0.1)
    assert base.clone(detector).get_params() == detector.get_params()
    assert detector.fit(3 * normals) is detector and detector.n_features_in_ == 8
    assert detector.predict(odd).tolist() == [-1] * 5
    assert (detector.predict(normals) == 1).mean() > 0.85
    scores = detector.score_samples(odd)
    np.testing.assert_allclose(scores, -Normals(normals, "density", 4).score(odd), rtol=1e-5)
    np.testing.assert_allclose(detector.decision_function(odd), scores - detector.offset_)
    alone = AnomalyDetector().fit(normals[:1])
    assert alone.predict(odd).tolist() == [1] * 5 and alone.limit_.threshold is None
    with pytest.raises(QueryError, match="7 values, and the normal ones 8"):
        detector.predict(np.ones((1, 7)))
    with pytest.raises(QueryError, match="call fit"):
        AnomalyDetector().predict(odd)
    for bad in ([[0.0] * 8], [[float("nan")] * 8]):
        with pytest.raises(QueryError, match="zero or not finite"):
            detector.fit(bad)
    with pytest.raises(QueryError, match="not of shape"):
        detector.fit(np.ones(8))
