"""What the pocket encoders see at each place of a picture."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

from retrieval.encoders import DenseEncoder
from retrieval.encoders.base import unit_rows
from retrieval.encoders.pocket import artefact, graph, weights
from retrieval.encoders.pocket.encoder import PocketText, PocketVisual
from retrieval.encoders.runtimes.onnx import OnnxGraph
from tests.pictures import picture

SIZES = [(320, 240), (240, 320), (224, 224), (31, 17), (1, 1), (900, 30)]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(seed, size) for seed, size in enumerate(SIZES)]


def test_tokens_have_a_grid_of_seven_whatever_the_neighbours(visual, text, pictures):
    for encoder in (visual, text):
        assert isinstance(encoder, DenseEncoder)
        together = encoder.encode_patches(pictures)
        assert together.tokens.shape == (len(SIZES), 49, 256)
        assert together.tokens.dtype == np.float32 and together.grids.dtype == np.int64
        assert together.grids.tolist() == [[7, 7]] * len(SIZES)
        assert 7 * encoder.spec.patch_px == encoder.spec.preprocess.size
        for at, one in enumerate(pictures):
            np.testing.assert_array_equal(
                encoder.encode_patches([one]).tokens[0], together.tokens[at]
            )
        none = encoder.encode_patches([])
        assert none.tokens.shape == (0, 49, 256) and none.grids.shape == (0, 2)


def test_the_mean_of_visual_tokens_is_the_embedding_before_it_is_normalised(visual, pictures):
    whitening = artefact.dequantise(artefact.read("visual."))
    pooled = visual.trunk.features(pictures)[:, : graph.POOLED]
    raw = (pooled - whitening["mean"]) @ whitening["matrix"]
    means = visual.encode_patches(pictures).tokens.mean(axis=1)
    np.testing.assert_allclose(means, raw, atol=1e-4 * np.abs(raw).max())
    np.testing.assert_allclose(unit_rows(means), visual.encode_images(pictures), atol=1e-4)


def test_a_text_token_is_the_embedding_of_a_picture_that_is_that_place_everywhere(text, pictures):
    for one in pictures[:3]:
        places = text.trunk.places(one)
        matrix, bias = text.trunk.classifier
        logits = places @ matrix + bias
        # The network's own classifier, on the mean, tells whether ours is its equal.
        features = text.trunk.features([one])[0]
        np.testing.assert_allclose(places.mean(axis=0), features[: graph.POOLED], atol=1e-4)
        np.testing.assert_allclose(logits.mean(axis=0), features[graph.POOLED :], atol=1e-3)
        tokens = text.encode_patches([one]).tokens[0]
        alone = text.project(np.hstack([places, logits]))
        np.testing.assert_allclose(unit_rows(tokens), alone, atol=1e-6)


def test_tokens_stand_row_by_row_from_the_top_left(visual: PocketVisual, text: PocketText):
    plain = Image.new("RGB", (224, 224), (120, 120, 120))
    for row, column in ((0, 0), (1, 5), (5, 1), (6, 6)):
        changed = plain.copy()
        changed.paste(picture(7, (32, 32)), (32 * column, 32 * row))
        for encoder in (visual, text):
            before, after = (encoder.encode_patches([p]).grid(0) for p in (plain, changed))
            moved = np.linalg.norm(after - before, axis=-1)
            found = np.unravel_index(moved.argmax(), moved.shape)
            assert np.abs(np.subtract(found, (row, column))).max() <= 1


def test_the_map_leaves_the_features_as_they_are_to_the_last_bit(pictures, visual):
    """A map in the chain, instead of beside it, would have them averaged in another order."""
    with_map = graph.build(weights.load())
    model = onnx.load_from_string(with_map)
    for output in list(model.graph.output):
        if output.name == "last":
            model.graph.output.remove(output)
    for node in list(model.graph.node):
        if "last" in node.output:
            model.graph.node.remove(node)
    without = OnnxGraph(model.SerializeToString())
    assert "last" not in without.outputs and "last" in OnnxGraph(with_map).outputs
    for one in pictures:
        feeds = visual.spec.preprocess.inputs([one])
        for wanted in (["features"], ["features", "last"]):
            np.testing.assert_array_equal(
                OnnxGraph(with_map).run(feeds, wanted)[0], without.run(feeds, ["features"])[0]
            )
