"""Encoders found by name or folder: what they are, and why some cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.encoders import Preprocess, load, space_of, specs
from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints import open_folder
from retrieval.encoders.checkpoints.files import weight_files
from retrieval.encoders.loading import find
from retrieval.encoders.names import parse
from retrieval.errors import EncoderError, UnknownEncoder

PROCESSOR = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}


def checkpoint(folder: Path, config: dict, processor: dict | None = PROCESSOR) -> Path:
    """A folder with configuration and an empty safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def spec_of(folder: Path) -> EncoderSpec:
    return open_folder(folder).spec


def describe(name: str) -> EncoderSpec:
    return find(parse(name)).spec


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownEncoder, match="dinov2-small"):
        load("dinov2-smal")
    with pytest.raises(UnknownEncoder, match="no checkpoint folder"):
        load("/nowhere/at/all")


def test_spec_of_a_dinov2_folder_equals_the_catalogue(tmp_path):
    facts = {"resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder = checkpoint(
        tmp_path / "mine", {"model_type": "dinov2", "hidden_size": 384}, {**PROCESSOR, **facts}
    )
    spec, known = describe(str(folder)), specs()["dinov2-small"]
    assert spec.name == str(folder.resolve())
    assert (spec.dim, spec.family, spec.pooling) == (known.dim, known.family, known.pooling)
    assert spec.preprocess == known.preprocess


def test_relative_folder_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "mine", {"model_type": "dinov2"})
    monkeypatch.chdir(tmp_path)
    assert describe("mine").name == describe("./mine").name == str(folder.resolve())


@pytest.mark.parametrize("name", ["pocket-visual", "dinov2-small", "dinov2-small:mean"])
def test_a_folder_in_the_way_does_not_change_what_a_listed_name_means(tmp_path, monkeypatch, name):
    checkpoint(tmp_path / name.partition(":")[0], {"model_type": "dinov2"})
    monkeypatch.chdir(tmp_path)
    assert (parse(name).kind, parse(name).name) == ("name", name)
    assert parse(f"./{name}").kind == "folder"
    assert load("pocket-visual").spec.name == "pocket-visual"


@pytest.mark.parametrize("name", ["", "~nobody-of-that-name/x", "a" * 300, "a\0b"])
def test_names_that_cannot_be_paths_are_unknown(name):
    with pytest.raises(UnknownEncoder):
        load(name)


@pytest.mark.parametrize("name", ["pocket-visual:mean", "pocket-text", "collections:Counter"])
def test_what_is_no_checkpoint_is_not_looked_for_on_the_hub(name):
    with pytest.raises(EncoderError, match="is no checkpoint") as raised:
        describe(name)
    assert (":mean" in str(raised.value)) == name.endswith(":mean")


def test_spec_of_clip_and_siglip_folders(tmp_path):
    old_style = {"size": 224, "crop_size": 224, "do_center_crop": True}
    clip = spec_of(checkpoint(tmp_path / "clip", {"model_type": "clip"}, old_style))
    assert clip.preprocess == specs()["clip-vit-b-32"].preprocess
    assert (clip.dim, clip.modalities) == (512, ("image", "text"))

    square = {"size": {"height": 224, "width": 224}, "resample": 3}
    folder = checkpoint(tmp_path / "siglip", {"model_type": "siglip"}, square)
    assert spec_of(folder).family == "SigLIP"
    assert spec_of(folder).preprocess == specs()["siglip-base"].preprocess
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}')
    assert spec_of(folder).family == "SigLIP 2"
    # Newer checkpoints keep the image processor's facts inside the processor's.
    (folder / "preprocessor_config.json").unlink()
    nested = {"image_processor": {**square, "resample": 2}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert spec_of(folder).preprocess == specs()["siglip2-base"].preprocess


@pytest.mark.parametrize(
    ("config", "processor", "sentence"),
    [
        ({}, PROCESSOR, "neither of transformers"),
        ({"model_type": "siglip2"}, {"image_processor_type": "ViTImageProcessor"}, "patches of 16"),
        ({"model_type": "dinov2"}, None, "no preprocessor_config.json"),
        ({"model_type": "dinov2"}, {**PROCESSOR, "do_pad": True}, "not supported"),
        ({"model_type": "dinov2"}, {"image_processor_type": "OwnImageProcessor"}, "not known"),
        ({"model_type": "dinov2"}, {"size": {"height": 9, "width": 8}}, "not supported"),
        ({"model_type": "vit", "image_size": [224, 384]}, PROCESSOR, "no square"),
        ({"model_type": "clip", "vision_config": {"image_size": 336}}, PROCESSOR, "336 px"),
    ],
)
def test_folder_that_cannot_be_used_says_why(tmp_path, config, processor, sentence):
    folder = checkpoint(tmp_path / "odd", config, processor)
    with pytest.raises(EncoderError, match=re.escape(sentence)):
        load(str(folder))


def test_folder_without_config_or_weights_says_so(tmp_path):
    with pytest.raises(EncoderError, match="no checkpoint folder"):
        load(str(tmp_path))
    folder = checkpoint(tmp_path / "mine", {"model_type": "dinov2"})
    (folder / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="cannot be read"):
        load(str(folder))
    folder = checkpoint(tmp_path / "pickled", {"model_type": "dinov2"})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="only safetensors"):
        load(str(folder))


def test_weights_in_parts_are_found_by_the_index(tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[1], "b": names[0], "c": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / names[0]).write_bytes(b"one")
    with pytest.raises(EncoderError, match=names[1]):
        weight_files(tmp_path)
    (tmp_path / names[1]).write_bytes(b"two")
    assert [path.name for path in weight_files(tmp_path)] == names


@pytest.mark.slow
def test_local_folder_loads_by_path_and_makes_its_space(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.encoders.checkpoints import siglip2

    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    folder = siglip2(tmp_path / "mine")
    encoder = load(str(folder))
    space = space_of(encoder)
    assert (space.name, space.dim, space.modalities) == (str(folder), 48, ("image", "text"))
    assert space.weights_hash == encoder.weights_hash
    vectors = encoder.encode_images([Image.new("RGB", (50, 20), "red")])
    assert vectors.shape == (1, 48)
    assert np.isfinite(vectors).all()
    assert isinstance(encoder.spec.preprocess, Preprocess)
