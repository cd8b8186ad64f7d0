"""Inputs equal those of each library's own processor, by numbers, on varied real photos."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retrieval.encoders.preprocess import _WHOLE_PIXELS, Preprocess
from retrieval.encoders.preprocess_config import (
    _MODELS,
    _PROCESSORS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    from_open_clip,
    from_timm,
    from_transformers,
)
from tests.encoders.photos import varied
from tests.pictures import picture

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

ROUNDING = 2e-6  # of float32, in normalised units
SETTINGS = [
    *((kind, {}) for kind in _PROCESSORS if kind != "Siglip2"),  # which has its own test
    ("Bit", {"size": {"shortest_edge": 256}}),
    ("CLIP", {"size": {"shortest_edge": 224}, "crop_size": {"height": 225, "width": 225}}),
    ("ConvNext", {"size": {"shortest_edge": 224}, "resample": 2}),
    ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "do_center_crop": True}),
    ("ViT", {"size": {"height": 97, "width": 97}, "resample": 1}),
    ("ViT", {"resample": 4, "do_normalize": False}),
    ("ViT", {"resample": 5, "do_rescale": False}),
    ("EfficientNet", {"resample": 0}),
]


def processor(kind: str, version: str, **facts: object) -> object:
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    found = get_image_processor_class_from_name(f"{kind}ImageProcessor{version}")
    return None if found is None else found(**facts)


def gap(preprocess: Preprocess, reference: np.ndarray) -> np.ndarray:
    """Differences in levels, 0 to 255."""
    ours = preprocess.inputs(varied())["pixels"]
    assert ours.shape == reference.shape
    return abs(ours - reference) * np.asarray(preprocess.std)[:, None, None] * 255


@pytest.mark.parametrize(("kind", "facts"), SETTINGS)
def test_inputs_equal_those_of_transformers(tmp_path, kind, facts) -> None:
    reference = processor(kind, "Pil", **facts) or processor(kind, "", **facts)
    reference.save_pretrained(tmp_path)
    preprocess = from_transformers(tmp_path)
    pixels = reference(list(varied()), return_tensors="pt")["pixel_values"].numpy()
    if type(reference).__name__.endswith("Pil"):
        assert abs(preprocess.inputs(varied())["pixels"] - pixels).max() < ROUNDING
    else:
        assert gap(preprocess, pixels).max() < (0.01 if kind == "DINOv3ViT" else 2.01)
    sparse = {"image_processor_type": f"{kind}ImageProcessorFast", **facts}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(sparse))
    assert from_transformers(tmp_path) == preprocess


@pytest.mark.parametrize("kind", [kind for kind in _PROCESSORS if kind != "Siglip2"])
def test_the_torch_version_of_a_processor_differs_by_rounding(tmp_path, kind) -> None:
    reference = processor(kind, "", resample=3)
    reference.save_pretrained(tmp_path)
    pixels = reference(list(varied()), return_tensors="pt")["pixel_values"].numpy()
    levels = gap(from_transformers(tmp_path), pixels)
    print(f"{kind}: max {levels.max():.3f}, mean {levels.mean():.5f} levels")
    assert levels.mean() < 0.1
    assert levels.max() < 13


def test_processors_without_a_name_are_those_that_transformers_takes() -> None:
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    for kind, models in _MODELS.items():
        for model in models:
            assert f"{kind}ImageProcessor" in IMAGE_PROCESSOR_MAPPING_NAMES[model].values()


def timm_settings() -> list[dict[str, object]]:
    """Every preprocessing that a published network of timm has, and some that none has."""
    timm = pytest.importorskip("timm")
    names = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    published = {
        tuple(getattr(timm.get_pretrained_cfg(model), name) for name in names)
        for model in timm.list_pretrained()
    }
    found = [dict(zip(names, values, strict=True)) for values in sorted(published, key=str)]
    square = [facts for facts in found if facts["input_size"][1] == facts["input_size"][2]]
    assert len(square) > 100
    return [
        *square,
        {"input_size": (3, 224, 224)},
        {"crop_mode": "border", "crop_pct": 0.8, "interpolation": "lanczos"},
        {"crop_mode": "squash", "crop_pct": 0.8, "interpolation": "nearest"},
        {"input_size": (3, 33, 33), "interpolation": "hamming"},
        {"input_size": (3, 33, 33), "crop_mode": "border", "interpolation": "box"},
    ]


def test_inputs_equal_those_of_timm() -> None:
    cases = timm_settings()
    from timm.data import create_transform, resolve_data_config

    photos = varied()
    for at, facts in enumerate(cases):
        transform = create_transform(**resolve_data_config(pretrained_cfg=facts))
        preprocess = from_timm(facts)
        for photo in photos if at >= len(cases) - 5 else (photos[at % 18], photos[-1]):
            if preprocess.resize == "longest" and max(photo.size) > 32 * min(photo.size):
                continue  # timm rounds the shorter side to no pixel at all and fails
            reference = transform(photo).numpy()
            long, short = max(photo.size), min(photo.size)
            whole = preprocess.resize_to**2 * long / short <= _WHOLE_PIXELS
            bound = ROUNDING if whole or preprocess.resize != "shortest" else 0.1
            assert abs(preprocess.inputs([photo])["pixels"][0] - reference).max() < bound, facts


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [224, (97, 97)])
def test_inputs_equal_those_of_open_clip(resize_mode, interpolation, size) -> None:
    pytest.importorskip("open_clip")
    from open_clip.transform import PreprocessCfg, image_transform_v2

    facts = {"resize_mode": resize_mode, "interpolation": interpolation, "size": size}
    facts["fill_color"] = 17
    transform = image_transform_v2(PreprocessCfg(**facts), is_train=False)
    preprocess = from_open_clip(facts)
    for photo in varied():
        if resize_mode == "longest" and max(photo.size) > 32 * min(photo.size):
            continue  # open_clip rounds the shorter side to no pixel at all and fails
        reference = transform(photo).numpy()
        assert abs(preprocess.inputs([photo])["pixels"][0] - reference).max() < ROUNDING


@given(
    picture_size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    size=st.integers(1, 40),
    crop_pct=st.floats(0.3, 1.0),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
)
@settings(deadline=None, max_examples=300)
def test_inputs_of_any_size_equal_those_of_timm(picture_size, size, crop_pct, crop_mode) -> None:
    pytest.importorskip("timm")
    from timm.data import create_transform, resolve_data_config

    facts = {"input_size": (3, size, size), "crop_pct": crop_pct, "crop_mode": crop_mode}
    transform = create_transform(**resolve_data_config(pretrained_cfg=facts))
    image = picture(size, picture_size)
    assume(crop_mode != "border" or size / crop_pct * min(picture_size) > max(picture_size))
    reference = transform(image).numpy()
    assert abs(from_timm(facts).inputs([image])["pixels"][0] - reference).max() < ROUNDING


@given(
    picture_size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    edge=st.integers(1, 40),
    cut=st.integers(1, 40),
    square=st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_inputs_of_any_size_equal_those_of_transformers(picture_size, edge, cut, square) -> None:
    size = {"height": edge, "width": edge} if square else {"shortest_edge": edge}
    facts = {"size": size, "crop_size": {"height": cut, "width": cut}}
    image = picture(edge, picture_size)
    reference = processor("CLIP", "Pil", **facts)([image], return_tensors="np")["pixel_values"]
    with TemporaryDirectory() as place:
        path = Path(place)
        facts["image_processor_type"] = "CLIPImageProcessor"
        (path / "preprocessor_config.json").write_text(json.dumps(facts))
        preprocess = from_transformers(path)
    assert abs(preprocess.inputs([image])["pixels"] - reference).max() < ROUNDING


@given(picture_size=st.tuples(st.integers(1, 120), st.integers(1, 120)), size=st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_inputs_of_any_size_equal_those_of_dinov3(picture_size, size) -> None:
    image = picture(size, picture_size)
    facts = {"size": {"height": size, "width": size}}
    reference = processor("DINOv3ViT", "", **facts)([image], return_tensors="np")["pixel_values"]
    preprocess = Preprocess(
        size, "squash", size, "bilinear", IMAGENET_MEAN, IMAGENET_STD, resize_in="float"
    )
    assert abs(preprocess.inputs([image])["pixels"] - reference).max() < 2e-4
