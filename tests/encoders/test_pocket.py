from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.encoders import pocket
from retrieval.encoders.base import Encoder, TextEncoder, TrunkEncoder, encode_spaces, space_of
from retrieval.encoders.pocket import artefact, graph
from retrieval.encoders.pocket.encoder import PocketText, PocketTrunk, PocketVisual
from retrieval.errors import EncoderUnavailable, UnknownEncoder

TEXTS = [
    "",
    "a dog",
    "A DOG",
    "a red car on a street",
    "two people are skiing down a mountain",
    "ein Hund läuft",
    "犬が走る",
    "🐕" * 20,
    "\udcff broken name",
    "\x00\n\t",
    "a very long text " * 2000,
]


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(320, 240), (240, 320), (224, 224), (31, 17), (1, 1), (900, 30)]
    coarse = [rng.integers(0, 256, (5, 5, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(c).resize(s) for c, s in zip(coarse, sizes, strict=True)]


def assert_unit(rows: np.ndarray, n: int) -> None:
    assert rows.shape == (n, 256)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_specs_and_loading_agree(visual: PocketVisual, text: PocketText) -> None:
    assert [spec.name for spec in pocket.SPECS] == ["pocket-visual", "pocket-text"]
    for encoder, spec in zip((visual, text), pocket.SPECS, strict=True):
        assert isinstance(encoder, Encoder)
        assert isinstance(encoder, TrunkEncoder)
        assert encoder.spec is spec
        assert space_of(encoder).dim == spec.dim
    assert isinstance(text, TextEncoder)
    assert not isinstance(visual, TextEncoder)
    assert visual.trunk is text.trunk is pocket.load("pocket-text").trunk
    with pytest.raises(UnknownEncoder, match="pocket-sound"):
        pocket.load("pocket-sound")


def test_hashes_are_stable_and_tell_the_encoders_apart(
    visual: PocketVisual, text: PocketText
) -> None:
    assert visual.weights_hash == PocketVisual(PocketTrunk()).weights_hash
    assert text.weights_hash == PocketText(PocketTrunk()).weights_hash
    assert visual.weights_hash != text.weights_hash
    int(visual.weights_hash, 16)


def test_images_give_unit_rows_whatever_their_neighbours(
    visual: PocketVisual, text: PocketText
) -> None:
    pictures = photos()
    for encoder in (visual, text):
        together = encoder.encode_images(pictures)
        assert_unit(together, len(pictures))
        backwards = encoder.encode_images(pictures[::-1])[::-1]
        alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
        np.testing.assert_allclose(backwards, together, atol=1e-5)
        np.testing.assert_allclose(alone, together, atol=1e-5)


def test_one_forward_pass_serves_both(visual: PocketVisual, text: PocketText) -> None:
    pictures = photos()[:2]
    spaces = encode_spaces([visual, text], pictures)
    np.testing.assert_array_equal(spaces["pocket-visual"], visual.encode_images(pictures))
    np.testing.assert_array_equal(spaces["pocket-text"], text.encode_images(pictures))
    assert visual.trunk.features(pictures).shape == (2, graph.WIDTH)


def test_texts_give_unit_rows_whatever_their_neighbours(text: PocketText) -> None:
    together = text.encode_texts(TEXTS)
    assert_unit(together, len(TEXTS))
    alone = np.concatenate([text.encode_texts([t]) for t in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(text.encode_texts(TEXTS[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_array_equal(together[1], together[2])


def test_an_empty_input_gives_no_rows(visual: PocketVisual, text: PocketText) -> None:
    assert_unit(visual.encode_images([]), 0)
    assert_unit(text.encode_images([]), 0)
    assert_unit(text.encode_texts([]), 0)


def test_threads_share_one_encoder() -> None:
    trunk = PocketTrunk()
    encoder = PocketText(trunk)
    pictures = photos()[:3]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: encoder.encode_images(pictures), range(16)))
        texts = list(pool.map(lambda _: encoder.encode_texts(TEXTS[:4]), range(16)))
    assert all(np.array_equal(rows, images[0]) for rows in images)
    assert all(np.array_equal(rows, texts[0]) for rows in texts)


def test_a_text_loads_neither_backbone_nor_graph_packages() -> None:
    code = (
        "import sys; from retrieval.encoders import pocket; "
        "encoder = pocket.load('pocket-text'); before = set(sys.modules); "
        "encoder.encode_texts(['a dog']); encoder.weights_hash; "
        "heavy = {'onnx', 'onnxruntime', 'torch', 'transformers'}; "
        "sys.exit(bool(heavy & set(sys.modules)) or 'tokenizers' in before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_weights_are_one_clear_error(tmp_path: Path) -> None:
    code = (
        "from PIL import Image; from retrieval.encoders import pocket; "
        "from retrieval.encoders.pocket import weights; weights.PACKAGE = 'not_here'; "
        "pocket.load('pocket-visual').encode_images([Image.new('RGB', (9, 9))])"
    )
    environment = os.environ | {"RETRIEVAL_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "EncoderUnavailable: the pocket encoders need the package not_here" in done.stderr


def test_a_damaged_artefact_is_one_clear_error(tmp_path: Path) -> None:
    for name, data in {"short": b"abc", "cut": artefact.TENSORS.read_bytes()[:10_000]}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(EncoderUnavailable, match="damaged"):
            artefact.read("text.", path)
    with pytest.raises(EncoderUnavailable, match="missing"):
        artefact.read("text.", tmp_path / "absent")


def test_quantised_rows_are_near_and_the_artefact_is_small() -> None:
    matrix = np.random.default_rng(0).normal(size=(20, 300))
    matrix[3] = 0
    back = artefact.dequantise(artefact.quantise("m", matrix))["m"]
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(back - matrix) <= step / 2 + 1e-6)
    assert sum(file.stat().st_size for file in artefact.FOLDER.iterdir()) <= 8_000_000


def test_the_numpy_tower_equals_the_trained_one(text: PocketText) -> None:
    """The forward pass in numpy against the training's in torch, from the same stored numbers."""
    torch = pytest.importorskip("torch")
    from retrieval.encoders.pocket.train.bert import Shape, Tower
    from retrieval.encoders.pocket.train.heads import TextHead
    from retrieval.encoders.pocket.train.tokens import pad

    stored = artefact.dequantise(artefact.read("text."))
    state = {name: torch.from_numpy(value) for name, value in stored.items()}
    state["words.weight"] = state.pop("words")
    hidden, width = state["layers.0.up.weight"].shape
    shape = Shape(
        vocabulary=state["words.weight"].shape[0],
        width=width,
        layers=sum(name.endswith("qkv.bias") for name in state),
        hidden=hidden,
        positions=state["positions"].shape[0],
        rank=state["words.weight"].shape[1],
    )
    tower, head = Tower(shape).eval(), TextHead().eval()
    own = {name for name, _ in head.named_parameters()}
    head.load_state_dict({name: value for name, value in state.items() if name in own})
    tower.load_state_dict({name: value for name, value in state.items() if name not in own})
    rows = [row.ids for row in text._tokenizer.encode_batch(TEXTS[1:6])]
    with torch.no_grad():
        theirs = head(tower(*pad(rows))).numpy()
    np.testing.assert_allclose(text.encode_texts(TEXTS[1:6]), theirs, atol=1e-5)


def test_copies_are_nearer_than_strangers(
    visual: PocketVisual, shared_data: Callable[[str], Path]
) -> None:
    files = sorted((shared_data("coco128") / "val2017").glob("*.jpg"))[:40]
    pictures = [Image.open(file).convert("RGB") for file in files]
    halves = [picture.resize((picture.width // 2, picture.height // 2)) for picture in pictures]
    scores = visual.encode_images(halves) @ visual.encode_images(pictures).T
    own = np.diag(scores).copy()
    np.fill_diagonal(scores, -1.0)
    assert np.all(own > scores.max(axis=1))
    assert own.min() > 0.85
