"""Folders of ONNX graphs: our own format, and a graph of the user's own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval.encoders import DenseEncoder, EncoderSpec, TextEncoder, load
from retrieval.encoders.checkpoints.portable import open_portable, save_portable
from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.specs_json import rule_of, spec_of, to_json
from retrieval.encoders.tokens import TextRule
from retrieval.errors import EncoderError, UnknownEncoder
from tests.encoders.graphs import WIDTH, image_graph, text_graph

HALF = (0.5, 0.5, 0.5)
PREPROCESS = Preprocess(32, "squash", 32, "bicubic", HALF, HALF)
RULE = TextRule(start=None, end="</s>", pad="</s>", context=8)


def spec(**facts: object) -> EncoderSpec:
    basics = {
        "name": "mine",
        "family": "Mine",
        "dim": WIDTH,
        "modalities": ("image",),
        "preprocess": PREPROCESS,
        "pooling": "mean",
        "source": "here",
        "revision": "1",
        "licence": "MIT",
        "size_mb": 0.1,
        "summary": "small",
    }
    return EncoderSpec(**{**basics, **facts})


def words(folder: Path) -> int:
    """Write a tokenizer of whole words; returns how many it has."""
    known = ["[UNK]", "</s>", "a", "red", "car", "dog"]
    tokenizer = Tokenizer(models.WordLevel({w: at for at, w in enumerate(known)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(known)


def both(folder: Path) -> None:
    image_graph(folder / "image.onnx")
    text_graph(folder / "text.onnx", words=words(folder))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def minimal(**facts: object) -> str:
    preprocess = {**to_json(spec())["preprocess"]}
    return json.dumps({"format": 1, "spec": {"preprocess": preprocess, **facts}})


def expected(pictures: list[Image.Image]) -> np.ndarray:
    """What ``image_graph`` computes, with numpy."""
    weight = np.random.default_rng(0).standard_normal((WIDTH, 3, 8, 8)).astype(np.float32)
    pixels = PREPROCESS.inputs(pictures)["pixels"]
    patches = pixels.reshape(-1, 3, 4, 8, 4, 8).transpose(0, 2, 4, 1, 3, 5)
    return np.einsum("nrcixy,wixy->nrcw", patches, weight)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "preprocess", [PREPROCESS, NaFlex(8, 16, "bilinear", HALF, HALF), None], ids=str
)
def test_facts_come_back_from_json_as_they_were(preprocess):
    facts = spec(preprocess=preprocess, patch_px=8, logit_scale=3.5, prompt="ein {}", gflops=1)
    assert spec_of(json.loads(json.dumps(to_json(facts)))) == facts
    assert rule_of(json.loads(json.dumps(to_json(RULE)))) == RULE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": "12"}, "dim cannot be '12'"),
        ({"dim": True}, "dim cannot be True"),
        ({"modalities": ["sound"]}, "modalities"),
        ({"colour": 1}, "no field colour"),
        ({"licence": None}, "licence cannot be None"),
        ({"preprocess": {"size": 32}}, "preprocessing lacks"),
    ],
)
def test_wrong_facts_are_named(change, said):
    with pytest.raises(EncoderError, match=said):
        spec_of({**to_json(spec()), **change})


def test_a_saved_folder_opens_as_it_was(tmp_path, pictures):
    facts = spec(modalities=("image", "text"), logit_scale=7.0)
    save_portable(tmp_path / "mine", facts, "ab" * 16, both, RULE)
    for encoder in (open_portable(tmp_path / "mine"), load(str(tmp_path / "mine"))):
        assert isinstance(encoder, TextEncoder)
        assert encoder.weights_hash == "ab" * 16
        assert encoder.runtime == "onnxruntime-cpu-fp32"
        assert encoder.spec.name == str(tmp_path / "mine")
        assert (encoder.spec.logit_scale, encoder.spec.dim) == (7.0, WIDTH)
        rows = expected(pictures).mean(axis=(1, 2))
        np.testing.assert_allclose(encoder.encode_images(pictures), unit(rows), atol=1e-5)
        table = np.random.default_rng(1).standard_normal((6, WIDTH)).astype(np.float32)
        texts = unit(np.stack([table[[2, 5, 1]].mean(axis=0), table[[3, 1]].mean(axis=0)]))
        np.testing.assert_allclose(encoder.encode_texts(["a dog", "red"])[0], texts[0], atol=1e-5)


def test_texts_of_different_lengths_do_not_disturb_each_other(tmp_path):
    text = TextRule(start=None, end="</s>", pad="</s>", context=8, fill=True)
    save_portable(tmp_path / "mine", spec(modalities=("image", "text")), "ab" * 16, both, text)
    encoder = open_portable(tmp_path / "mine")
    assert isinstance(encoder, TextEncoder)
    texts = ["a dog", "red", "", "a red car a red car a red car a red car"]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(EncoderError, match="not empty"):
        save_portable(tmp_path / "mine", spec(), "ab" * 16, both)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["diary.txt"]


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def fails(folder: Path) -> None:
        image_graph(folder / "image.onnx")
        raise EncoderError("no luck")

    with pytest.raises(EncoderError, match="no luck"):
        save_portable(tmp_path / "mine", spec(), "ab" * 16, fails)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_noticed(tmp_path, pictures):
    folder = tmp_path / "mine"
    save_portable(folder, spec(), "ab" * 16, lambda to: image_graph(to / "image.onnx") and None)
    open_portable(folder).encode_images(pictures)
    whole = (folder / "image.onnx").read_bytes()
    (folder / "image.onnx").write_bytes(whole[:-40])
    with pytest.raises(EncoderError, match="damaged"):
        open_portable(folder)
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 1
    (folder / "image.onnx").write_bytes(turned)
    with pytest.raises(EncoderError, match="damaged"):
        open_portable(folder)
    (folder / "image.onnx").unlink()
    with pytest.raises(EncoderError, match=r"image\.onnx"):
        open_portable(folder)


def test_a_later_format_is_refused(tmp_path):
    image_graph(tmp_path / "image.onnx")
    (tmp_path / "encoder.json").write_text(json.dumps({"format": 2, "spec": {}}))
    with pytest.raises(EncoderError, match="format 2"):
        open_portable(tmp_path)


@pytest.mark.parametrize(("given", "gives"), [("pixels", "embedding"), ("input.1", "495")])
def test_ones_own_graph_needs_only_its_preprocessing(given, gives, tmp_path, pictures):
    image_graph(tmp_path / "net.onnx", given=given, gives=gives)
    (tmp_path / "encoder.json").write_text(minimal())
    encoder = open_portable(tmp_path)
    rows = unit(expected(pictures).mean(axis=(1, 2)))
    np.testing.assert_allclose(encoder.encode_images(pictures), rows, atol=1e-5)
    assert encoder.spec.dim == WIDTH
    assert encoder.spec.patch_px is None
    assert encoder.spec.library == "onnx"


def test_the_hash_of_ones_own_graph_is_that_of_its_content(tmp_path):
    for name, prefix in (("a", 1), ("b", 1), ("c", 2)):
        image_graph(tmp_path / name / "net.onnx", last="tokens", prefix=prefix)
        (tmp_path / name / "encoder.json").write_text(minimal(pooling="cls"))
    a, b, c = (open_portable(tmp_path / name).weights_hash for name in "abc")
    assert a == b != c


def test_a_bare_file_has_its_facts_beside_it(tmp_path, pictures):
    path = image_graph(tmp_path / "x.onnx")
    with pytest.raises(EncoderError, match=r"x\.json"):
        load(str(path))
    (tmp_path / "x.json").write_text(minimal())
    encoder = load(str(path))
    rows = unit(expected(pictures).mean(axis=(1, 2)))
    np.testing.assert_allclose(encoder.encode_images(pictures), rows, atol=1e-5)
    assert encoder.spec.name == str(path)
    with pytest.raises(UnknownEncoder, match=r"absent\.onnx"):
        load(str(tmp_path / "absent.onnx"))


def test_the_error_shows_json_that_works(tmp_path, pictures):
    path = image_graph(tmp_path / "x.onnx")
    with pytest.raises(EncoderError) as missing:
        open_portable(path)
    shown = re.search(r"\{.*\}", str(missing.value))
    assert shown
    (tmp_path / "x.json").write_text(shown.group())
    assert open_portable(path).encode_images(pictures).shape == (5, WIDTH)


@pytest.mark.parametrize("last", ["tokens", "map"])
def test_tokens_of_the_last_layer_need_a_pooling(last, tmp_path, pictures):
    prefix = 3 if last == "tokens" else 0
    path = image_graph(tmp_path / "x.onnx", last=last, prefix=prefix)
    (tmp_path / "x.json").write_text(minimal())
    with pytest.raises(EncoderError, match='"pooling": "cls"'):
        open_portable(path)
    (tmp_path / "x.json").write_text(minimal(pooling="mean"))
    encoder = open_portable(path)
    places = expected(pictures)
    np.testing.assert_allclose(
        encoder.encode_images(pictures), unit(places.mean(axis=(1, 2))), atol=1e-5
    )
    assert isinstance(encoder, DenseEncoder)
    assert encoder.spec.patch_px == 8
    found = encoder.encode_patches(pictures)
    np.testing.assert_allclose(found.grid(1), places[1], atol=1e-4)

    gem = (np.maximum(places, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3)
    other = load(f"{path}:gem")
    np.testing.assert_allclose(other.encode_images(pictures), unit(gem), atol=1e-5)
    assert other.spec.name.endswith("x.onnx:gem")
    if last == "map":
        with pytest.raises(EncoderError, match="no CLS token"):
            load(f"{path}:cls").encode_images(pictures)
        return
    two = load(f"{path}:cls+mean")
    assert two.spec.dim == 2 * WIDTH
    mean = places.mean(axis=(1, 2))
    rows = unit(np.concatenate([mean, mean], axis=1))
    np.testing.assert_allclose(two.encode_images(pictures), rows, atol=1e-5)


def test_a_finished_embedding_has_no_other_pooling(tmp_path):
    path = image_graph(tmp_path / "x.onnx")
    (tmp_path / "x.json").write_text(minimal())
    with pytest.raises(EncoderError, match="leave out :gem"):
        load(f"{path}:gem")


def test_a_graph_for_one_picture_gets_one_at_a_time(tmp_path, pictures):
    path = image_graph(tmp_path / "x.onnx", batch=1)
    (tmp_path / "x.json").write_text(minimal())
    rows = unit(expected(pictures).mean(axis=(1, 2)))
    np.testing.assert_allclose(open_portable(path).encode_images(pictures), rows, atol=1e-5)
    image_graph(path, batch=4)
    with pytest.raises(EncoderError, match="exactly 4 pictures"):
        open_portable(path)


def test_a_size_that_the_graph_leaves_open_comes_from_the_facts(tmp_path, pictures):
    path = image_graph(tmp_path / "x.onnx", size="side")
    (tmp_path / "x.json").write_text(minimal())
    rows = unit(expected(pictures).mean(axis=(1, 2)))
    np.testing.assert_allclose(open_portable(path).encode_images(pictures), rows, atol=1e-5)
    image_graph(path, size=64)
    with pytest.raises(EncoderError, match="64 px"):
        open_portable(path)


def test_graphs_that_are_no_image_encoder_are_refused(tmp_path):
    path = text_graph(tmp_path / "x.onnx", words=3)
    (tmp_path / "x.json").write_text(minimal())
    with pytest.raises(EncoderError, match=r"'ids' is \[\?, \?\], not \[n, 3, size, size\]"):
        open_portable(path)
    path.write_bytes(b"no graph")
    with pytest.raises(EncoderError, match="cannot be read as ONNX"):
        open_portable(path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(EncoderError, match=r"x\.json cannot be read"):
        open_portable(path)


def test_weights_in_other_files_belong_to_the_graph(tmp_path, pictures):
    path = image_graph(tmp_path / "x.onnx")
    (tmp_path / "x.json").write_text(minimal())
    plain = open_portable(path).encode_images(pictures)
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    first = open_portable(path)
    np.testing.assert_array_equal(first.encode_images(pictures), plain)

    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[3] ^= 1
    (tmp_path / "w.bin").write_bytes(weights)
    os.utime(tmp_path / "w.bin", ns=(1, 1))
    assert open_portable(path).weights_hash != first.weights_hash
    (tmp_path / "w.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(EncoderError, match=r"lacks its weights w\.bin"):
        open_portable(path)


def test_weights_outside_of_the_folder_are_not_read(tmp_path):
    path = image_graph(tmp_path / "net" / "x.onnx")
    (tmp_path / "net" / "x.json").write_text(minimal())
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../secret.bin")
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EncoderError, match="outside of its folder"):
        open_portable(path)
