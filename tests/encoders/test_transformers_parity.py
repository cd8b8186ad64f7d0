"""Every family of transformers against the library's own processor, tokenizer and model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from retrieval.encoders import DenseEncoder, TextEncoder  # noqa: E402
from retrieval.encoders.build import torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.network import NetworkEncoder  # noqa: E402
from retrieval.encoders.towers.trunks import resized_positions  # noqa: E402
from tests.encoders import references  # noqa: E402
from tests.encoders.checkpoints import ALIGNED, BACKBONES, CHINESE, FAMILIES, SENTENCES  # noqa: E402
from tests.encoders.parity import check_equal, unit  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402

pytestmark = pytest.mark.slow

TEXTS = (
    *SENTENCES,
    *CHINESE,
    "A Photo of a SMALL dog, on a beach!",
    "zebra",
    "  two   red cars\n",
    "naïve café — 日本 🐕",
    "",
    "a very long text about a small dog and a red car " * 30,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


def load(folder: Path) -> NetworkEncoder:
    return torch_encoder(open_folder(folder), device="cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_images_and_patches_equal_those_of_the_library(name, tmp_path):
    encoder = load(FAMILIES[name](tmp_path / name))
    assert isinstance(encoder, DenseEncoder)
    whole, places = references.images(name, tmp_path / name, varied())
    ours, found = encoder.encode_images(varied()), encoder.encode_patches(varied())
    assert ours.dtype == found.tokens.dtype == np.float32
    grids = found.grids.tolist()
    assert [rows * columns for rows, columns in grids] == [len(one) for one in places]
    px, size = encoder.spec.patch_px, encoder.spec.preprocess.size
    assert "naflex" in name or grids == [[size // px, size // px]] * len(ours)
    # torch resizes positions to a single column wrongly: see resized_positions.
    right = [at for at, (_, columns) in enumerate(grids) if columns > 1]
    assert len(right) > 20
    check_equal(f"{name} images", ours[right], unit(whole[right]))
    tokens = np.concatenate([found.grid(at).reshape(-1, found.tokens.shape[-1]) for at in right])
    reference = torch.cat([places[at] for at in right])
    check_equal(f"{name} patches", unit(torch.from_numpy(tokens)), unit(reference))


def test_positions_are_resized_as_pillow_resizes_pictures():
    table = np.random.default_rng(0).normal(size=(25, 2)).astype(np.float32)
    planes = [Image.fromarray(plane) for plane in table.reshape(5, 5, 2).transpose(2, 0, 1)]
    shapes = [(1, 1), (18, 1), (1, 18), (9, 2), (2, 8), (3, 6), (4, 4), (5, 3), (7, 2)]
    found = resized_positions(torch.from_numpy(table), torch.tensor(shapes), 18)
    for ours, (rows, columns) in zip(found.numpy(), shapes, strict=True):
        resized = [plane.resize((columns, rows), Image.Resampling.BILINEAR) for plane in planes]
        expected = np.stack([np.asarray(plane).ravel() for plane in resized], axis=-1)
        np.testing.assert_allclose(ours[: rows * columns], expected, atol=1e-6)


@pytest.mark.parametrize("name", ALIGNED)
def test_texts_equal_those_of_the_library(name, tmp_path):
    encoder = load(ALIGNED[name](tmp_path / name))
    assert isinstance(encoder, TextEncoder)
    ours = encoder.encode_texts(TEXTS)
    check_equal(f"{name} texts", ours, unit(references.texts(name, tmp_path / name, TEXTS)))
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, ours, atol=1e-5)


@pytest.mark.parametrize("name", ALIGNED)
def test_logits_equal_those_of_the_library(name, tmp_path):
    """The scale, bounded where the library bounds it, and the bias."""
    folder = ALIGNED[name](tmp_path / name)
    encoder = load(folder)
    inputs = references.text_inputs(name, folder, TEXTS)
    texts = {key: torch.tensor(rows) for key, rows in inputs.items()}
    model = tf.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(**texts, **references.image_inputs(folder, varied()[:3]))
    cosine = encoder.encode_images(varied()[:3]) @ encoder.encode_texts(TEXTS).T
    logits = encoder.spec.logit_scale * cosine + (encoder.spec.logit_bias or 0)
    np.testing.assert_allclose(logits, found.logits_per_image, atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone_equals_the_library(name, tmp_path):
    encoder = load(BACKBONES[name](tmp_path / name))
    with torch.inference_mode():
        found = tf.AutoModel.from_pretrained(tmp_path / name).eval()(
            **references.image_inputs(tmp_path / name, varied())
        )
    last, pooling = found.last_hidden_state, encoder.spec.pooling
    with_cls = name in ("beit", "beit_pretrained", "data2vec", "pvt")
    places = last.flatten(2).transpose(1, 2) if last.ndim == 4 else last[:, with_cls:]
    whole = places.mean(dim=1) if pooling == "mean" else found.pooler_output.flatten(1)
    check_equal(f"{name} images, {pooling}", encoder.encode_images(varied()), unit(whole))

    tokens = torch.from_numpy(encoder.encode_patches(varied()).tokens)
    assert tokens.shape == places.shape
    check_equal(f"{name} patches", unit(tokens.flatten(0, 1)), unit(places.flatten(0, 1)))
