"""Encoders of transformers' checkpoints: batches, weights, poolings, and what is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from retrieval import encoders  # noqa: E402
from retrieval.encoders import TextEncoder  # noqa: E402
from retrieval.encoders.build import torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.network import NetworkEncoder  # noqa: E402
from retrieval.errors import EncoderError, EncoderUnavailable  # noqa: E402
from tests.encoders.checkpoints import FAMILIES, SENTENCES, siglip  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402

pytestmark = pytest.mark.slow

TEXTS = (*SENTENCES, "zebra", "", "a very long text about a small dog and a red car " * 30)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    names = ("dinov2", "dinov3_convnext", "ijepa", "naflex_vision", "clip", "siglip2", "naflex")
    return {name: FAMILIES[name](root / name) for name in names}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return list(varied()[:14])


def load(folder: Path) -> NetworkEncoder:
    return torch_encoder(open_folder(folder), device="cpu")


@pytest.mark.parametrize("name", ["clip", "naflex"])
def test_batches_threads_and_order_change_nothing(name, folders, pictures):
    encoder = load(folders[name])
    many = pictures * 6
    whole = encoder.encode_images(many)
    single = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(whole, np.tile(single, (6, 1)), atol=1e-5)
    texts = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[1:2]), texts[1:2], atol=1e-5)

    answers: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: encoder.encode_images(pictures)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers.values():
        np.testing.assert_allclose(answer, single, atol=1e-5)
    assert len(answers) == 4
    norms = np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_nothing_gives_no_rows(folders):
    encoder = load(folders["clip"])
    assert encoder.encode_images([]).shape == (0, encoder.spec.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.spec.dim)


def test_batch_that_does_not_fit_is_halved_until_it_does(folders, pictures):
    checkpoint = open_folder(folders["dinov2"])
    towers = checkpoint.towers()
    encoder = torch_encoder(replace(checkpoint, towers=lambda: towers), device="cpu")
    expected = encoder.encode_images(pictures)
    sizes: list[int] = []

    def full(_module, args):
        sizes.append(len(args[0]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("no memory left for so many")

    hook = towers.image.register_forward_pre_hook(full)
    np.testing.assert_allclose(encoder.encode_images(pictures), expected, atol=1e-5)
    assert sizes[:4] == [14, 7, 3, 3]
    hook.remove()

    def never(_module, _args):
        raise torch.OutOfMemoryError("no memory left at all")

    towers.image.register_forward_pre_hook(never)
    with pytest.raises(EncoderError, match="no memory left at all"):
        encoder.encode_images(pictures)


def test_visual_encoder_has_no_text_side(folders):
    assert not isinstance(load(folders["dinov2"]), TextEncoder)


def test_damaged_weights_are_refused(tmp_path):
    folder = siglip(tmp_path / "siglip")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)
    weights.write_bytes(b"\xff" * 64)
    with pytest.raises(EncoderError, match="damaged"):
        load(folder)


def test_weights_that_lack_layers_are_refused_not_made_up(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = siglip(tmp_path / "siglip")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "post_layernorm.weight" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="post_layernorm"):
        load(folder)


def test_weights_that_are_not_numbers_are_an_error(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = siglip(tmp_path / "siglip")
    weights = load_file(folder / "model.safetensors")
    nan = {name: np.full_like(value, np.nan) for name, value in weights.items()}
    save_file(nan, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="finite"):
        load(folder).encode_images([Image.new("RGB", (40, 40))])


def test_missing_torch_names_the_package(folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(EncoderUnavailable, match="pip install torch"):
        load(folders["dinov2"])


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("dinov2", "cls"),
        ("dinov2", "mean"),
        ("dinov2", "cls+mean"),
        ("dinov2", "gem"),
        ("dinov3_convnext", "mean"),
        ("ijepa", "gem"),
        ("naflex_vision", "mean"),
        ("naflex_vision", "gem"),
    ],
)
def test_another_pooling_can_be_asked_for(name, pooling, folders, pictures):
    encoder = encoders.load(f"{folders[name]}:{pooling}")
    assert encoder.spec.pooling == pooling
    assert encoder.spec.name.endswith(f":{pooling}")
    assert encoder.spec.dim == (96 if pooling == "cls+mean" else 48)
    found = encoder.encode_patches(pictures)
    places = [found.grid(at).reshape(-1, 48).astype(np.float64) for at in range(len(pictures))]
    cls = load(folders["dinov2"]).encode_images(pictures)
    mean = np.stack([one.mean(axis=0) for one in places])
    gem = np.stack([np.cbrt((one.clip(1e-6) ** 3).mean(axis=0)) for one in places])
    ours = encoder.encode_images(pictures)
    if pooling == "cls+mean":
        np.testing.assert_allclose(unit(ours[:, :48]), cls, atol=1e-5)
        ours = unit(ours[:, 48:])
    expected = {"cls": cls, "gem": gem}.get(pooling, mean)
    np.testing.assert_allclose(ours, unit(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["ijepa", "dinov3_convnext", "naflex_vision"])
def test_what_has_no_cls_says_so(name, folders):
    for pooling in ("cls", "cls+mean"):
        with pytest.raises(EncoderError, match=r"has no CLS token.*take :mean or :gem"):
            open_folder(folders[name], pooling)


def test_words_and_pictures_keep_their_own_pooling(folders):
    with pytest.raises(EncoderError, match="its own pooling"):
        encoders.load(f"{folders['clip']}:gem")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
