"""Configurations of other libraries: read as they read them, refused by name where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.encoders.naflex import NaFlex
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.preprocess_config import from_open_clip, from_timm, from_transformers
from retrieval.errors import EncoderError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SQUARE = {"size": {"height": 224, "width": 224}}
CUT = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
FLOOR = {"centre": "floor"}


def folder(path: Path, facts: dict, name: str = "preprocessor_config.json") -> Path:
    (path / name).write_text(json.dumps(facts))
    return path


# What published checkpoints say, with the names that several versions of the library wrote.
PUBLISHED = {
    "dinov2": (
        {
            **CUT,
            "image_processor_type": "BitImageProcessor",
            "do_center_crop": True,
            "resample": 3,
            "image_mean": IMAGENET[0],
            "image_std": IMAGENET[1],
            "rescale_factor": 0.00392156862745098,
        },
        Preprocess(224, "shortest", 256, "bicubic", *IMAGENET, **FLOOR),
    ),
    "dinov3": (
        {
            **SQUARE,
            "image_processor_type": "DINOv3ViTImageProcessorFast",
            "crop_size": None,
            "do_center_crop": None,
            "do_convert_rgb": None,
            "data_format": "channels_first",
            "resample": 2,
            "image_mean": IMAGENET[0],
            "image_std": IMAGENET[1],
        },
        Preprocess(224, "squash", 224, "bilinear", *IMAGENET, resize_in="float"),
    ),
    "clip": (
        {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "size": 224,
            "crop_size": 224,
            "do_center_crop": True,
            "do_resize": True,
            "do_normalize": True,
            "resample": 3,
            "image_mean": CLIP[0],
            "image_std": CLIP[1],
        },
        Preprocess(224, "shortest", 224, "bicubic", *CLIP, **FLOOR),
    ),
    "siglip": (
        {**SQUARE, "image_processor_type": "SiglipImageProcessor", "resample": 3},
        Preprocess(224, "squash", 224, "bicubic", *HALF),
    ),
    "naflex": (
        {
            "image_processor_type": "Siglip2ImageProcessor",
            "patch_size": 16,
            "max_num_patches": 256,
            "resample": 2,
        },
        NaFlex(16, 256, "bilinear", *HALF),
    ),
    "mae": (
        {
            "feature_extractor_type": "ViTFeatureExtractor",
            "size": 224,
            "image_mean": IMAGENET[0],
            "image_std": IMAGENET[1],
        },
        Preprocess(224, "squash", 224, "bilinear", *IMAGENET),
    ),
    "convnext": (
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_pct": 0.875,
            "resample": 3,
        },
        Preprocess(224, "shortest", 256, "bicubic", *HALF, **FLOOR),
    ),
    "convnext-384": (
        {"image_processor_type": "ConvNextImageProcessor", "size": 384},
        Preprocess(384, "squash", 384, "bicubic", *HALF),
    ),
    "deit": (
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": 256,
            "crop_size": 224,
            "do_center_crop": True,
        },
        Preprocess(224, "squash", 256, "bicubic", *HALF, **FLOOR),
    ),
    "smaller than its cut": (
        {"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 256},
        Preprocess(256, "shortest", 224, "bicubic", *CLIP, **FLOOR),
    ),
    "nothing said": (
        {"image_processor_type": "CLIPImageProcessor"},
        Preprocess(224, "shortest", 224, "bicubic", *CLIP, **FLOOR),
    ),
    "not normalised": (
        {**SQUARE, "image_processor_type": "ViTImageProcessor", "do_normalize": False},
        Preprocess(224, "squash", 224, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_of_transformers(tmp_path, name) -> None:
    facts, expected = PUBLISHED[name]
    assert from_transformers(folder(tmp_path, facts)) == expected


def test_the_nested_form_comes_first(tmp_path) -> None:
    facts, expected = PUBLISHED["siglip"]
    folder(tmp_path, {**facts, "resample": 0})
    folder(tmp_path, {"image_processor": facts}, "processor_config.json")
    assert from_transformers(tmp_path) == expected


def test_the_model_type_stands_in_for_a_processor_without_name(tmp_path) -> None:
    facts = {"size": {"height": 32, "width": 32}}
    folder(tmp_path, {"model_type": "siglip"}, "config.json")
    found = from_transformers(folder(tmp_path, facts))
    assert found == Preprocess(32, "squash", 32, "bicubic", *HALF)
    folder(tmp_path, {"model_type": "unheard-of"}, "config.json")
    with pytest.raises(EncoderError, match="lacks image_processor_type"):
        from_transformers(tmp_path)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, "no preprocessor_config.json"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, "LlavaNextImageProcessor is not"),
        ({**SQUARE, "do_flip_channel_order": True}, "do_flip_channel_order"),
        ({**SQUARE, "do_pad": True, "do_thumbnail": True}, "do_pad, do_thumbnail"),
        ({**SQUARE, "do_resize": False}, "do_resize is off"),
        ({"size": {"height": 9, "width": 8}}, "size of {'height': 9, 'width': 8}"),
        ({"size": {"shortest_edge": 9, "longest_edge": 12}}, "'longest_edge': 12"),
        ({"size": {"shortest_edge": 224}}, "without do_center_crop"),
        ({"size": "large"}, "size of large"),
        ({"size": 0}, "size 0"),
        ({**SQUARE, "do_center_crop": True}, "crop_size"),
        ({**SQUARE, "resample": 9}, "9 is not a valid Resampling"),
        ({**SQUARE, "image_mean": [0.5]}, "mean (0.5,)"),
        ({**SQUARE, "image_std": 0}, "std (0, 0, 0)"),
        ({**SQUARE, "image_std": "wide"}, "std"),
        ({**SQUARE, "rescale_factor": 0}, "zero"),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 9, "width": 9}},
            "size {'height': 9, 'width': 9}",
        ),
        ({"image_processor_type": "Siglip2ImageProcessor", "patch_size": "p"}, "patch_px 'p'"),
    ],
)
def test_what_cannot_be_equalled_is_named(tmp_path, facts, sentence) -> None:
    if facts:
        facts = {"image_processor_type": "ViTImageProcessor", **facts}
    with pytest.raises(EncoderError) as caught:
        from_transformers(folder(tmp_path, facts))
    assert sentence in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, Preprocess(224, "shortest", 256, "bicubic", *IMAGENET)),
        ({"crop_pct": 0.9}, Preprocess(224, "shortest", 248, "bicubic", *IMAGENET)),
        (
            {"input_size": [3, 448, 448], "crop_pct": 1.0, "mean": CLIP[0], "std": CLIP[1]},
            Preprocess(448, "shortest", 448, "bicubic", *CLIP),
        ),
        (
            {"crop_mode": "squash", "crop_pct": 0.95, "interpolation": "bilinear"},
            Preprocess(224, "squash", 235, "bilinear", *IMAGENET),
        ),
        (
            {"crop_mode": "border", "crop_pct": 1, "mean": CLIP[0], "std": CLIP[1]},
            Preprocess(224, "longest", 224, "bicubic", *CLIP, fill=(123, 117, 104)),
        ),
    ],
)
def test_configurations_of_timm(facts, expected) -> None:
    assert from_timm(facts) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, Preprocess(224, "shortest", 224, "bicubic", *CLIP)),
        (
            {"size": [256, 256], "mean": 0, "std": [1, 1, 1], "interpolation": "bilinear"},
            Preprocess(256, "shortest", 256, "bilinear", (0.0,) * 3, (1.0,) * 3),
        ),
        (
            {"size": 384, "resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
            Preprocess(384, "squash", 384, "bicubic", *HALF),
        ),
        (
            {"resize_mode": "longest", "fill_color": 127, "interpolation": "random"},
            Preprocess(224, "longest", 224, "bicubic", *CLIP, fill=(127, 127, 127)),
        ),
        ({"fill_color": 127}, Preprocess(224, "shortest", 224, "bicubic", *CLIP)),
    ],
)
def test_configurations_of_open_clip(facts, expected) -> None:
    assert from_open_clip(facts) == expected


@pytest.mark.parametrize(
    ("read", "facts", "sentence"),
    [
        (from_timm, {"input_size": [3, 1024, 768]}, "(3, 1024, 768)"),
        (from_timm, {"input_size": [1, 28, 28]}, "(1, 28, 28)"),
        (from_timm, {"crop_mode": "corner"}, "crop_mode 'corner'"),
        (from_timm, {"interpolation": "random"}, "interpolation 'random'"),
        (from_timm, {"mean": [0.5]}, "mean [0.5]"),
        (from_open_clip, {"size": [256, 128]}, "[256, 128]"),
        (from_open_clip, {"resize_mode": "fit"}, "resize 'fit'"),
        (from_open_clip, {"interpolation": "nearby"}, "interpolation 'nearby'"),
    ],
)
def test_what_cannot_be_equalled_is_named_for_the_others_too(read, facts, sentence) -> None:
    with pytest.raises(EncoderError) as caught:
        read(facts)
    assert sentence in str(caught.value)
