"""Preprocessing from the configuration that another library keeps beside its weights.

Each reader gives what that library's own processor does at inference, with the same defaults where
the configuration is silent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.naflex import NaFlex, preprocess_of
from retrieval.encoders.preprocess import Preprocess
from retrieval.errors import EncoderError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

_IMAGENET = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_CLIP = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}
_HALF = {"image_mean": HALF, "image_std": HALF}
_SHORTER = {"default_to_square": False}
_CUT = {"size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True, **_SHORTER}

# Image processors of transformers that this project can equal, without "ImageProcessor", and what
# they take where preprocessor_config.json is silent, in its own words.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "Beit": {"size": 224, "crop_size": 224, **_HALF},
    "Bit": {**_CUT, **_CLIP},
    "Blip": {"size": 384, **_CLIP},
    "CLIP": {**_CUT, **_CLIP},
    "ChineseCLIP": {**_CUT, **_CLIP},
    "ConvNext": {"size": {"shortest_edge": 384}, "crop_pct": 0.875, **_HALF, **_SHORTER},
    "DINOv3ViT": {"size": 224, "resample": 2, **_IMAGENET},
    "DeiT": {"size": 256, "crop_size": 224, "do_center_crop": True, **_HALF},
    "EfficientNet": {"size": 346, "crop_size": 289, "include_top": True, **_HALF},
    "Levit": {**_CUT, **_IMAGENET},
    "PoolFormer": {**_CUT, "crop_pct": 0.9, **_IMAGENET},
    "Pvt": {"size": 224, **_IMAGENET},
    "Segformer": {"size": 512, "resample": 2, **_IMAGENET},
    "Siglip": {"size": {"height": 224, "width": 224}, **_HALF, **_SHORTER},
    "Siglip2": {"patch_size": 16, "max_num_patches": 256, "resample": 2, **_HALF},
    "Tipsv2": {"size": 448, "resample": 2, "do_normalize": False},
    "ViT": {"size": 224, "resample": 2, **_HALF},
}
# The processor of checkpoints that do not name one, by their ``model_type``.
_MODELS = {
    "Beit": {"beit", "data2vec-vision"},
    "Bit": {"bit", "dinov2", "focalnet", "hiera", "pixio"},
    "CLIP": {"aimv2", "aimv2_vision_model", "altclip", "clip", "groupvit", "metaclip_2", "mlcd"},
    "ChineseCLIP": {"chinese_clip"},
    "ConvNext": {"convnext", "convnextv2", "regnet", "resnet"},
    "DINOv3ViT": {"dinov3_vit"},
    "Siglip": {"siglip"},
    "Siglip2": {"siglip2"},
    "ViT": {"ijepa", "swin", "swinv2", "vit", "vit_mae", "vit_msn"},
}
# Steps that are understood below, or that leave RGB pictures as they are.
_STEPS = {
    "do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb",
    "do_reduce_labels", "use_fast",
}  # fmt: skip


def from_transformers(folder: Path) -> Preprocess | NaFlex:
    """Read the image processor's configuration in a folder that ``save_pretrained`` wrote.

    Where transformers has two versions of a processor, it is the one on Pillow that is equalled.

    Args:
        folder: holds ``preprocessor_config.json``, or ``processor_config.json`` with it inside.

    Raises:
        EncoderError: if there is none, or naming what in it is unknown or cannot be equalled.
    """
    # The order in which transformers looks.
    given = read_json(folder, "processor_config.json").get("image_processor")
    given = given or read_json(folder, "preprocessor_config.json")
    if not given:
        raise EncoderError(f"{folder} has no preprocessor_config.json: copy it from the source")
    kind = _processor(folder, given)
    facts = {**_PROCESSORS[kind], **{key: v for key, v in given.items() if v is not None}}
    try:
        return preprocess_of(_patches(facts) if kind == "Siglip2" else _square(kind, facts))
    except (ArithmeticError, LookupError, TypeError, ValueError, EncoderError) as error:
        raise EncoderError(f"{folder}: its preprocessing is not supported: {error}") from error


def from_timm(pretrained_cfg: Mapping[str, Any]) -> Preprocess:
    """Read the configuration of a timm network, as timm's own evaluation transform does.

    Args:
        pretrained_cfg: ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean``
            and ``std``, as in ``config.json`` of timm's checkpoints; each may be missing.

    Raises:
        EncoderError: naming what cannot be equalled.
    """
    given = {key: value for key, value in pretrained_cfg.items() if value}
    shape = tuple(given.get("input_size", (3, 224, 224)))
    if len(set(shape[1:])) != 1 or shape[0] != 3:
        raise EncoderError(f"timm: input_size {shape} is not supported; only RGB squares are")
    mode = given.get("crop_mode", "center")
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    if mode not in modes:
        raise EncoderError(f"timm: crop_mode {mode!r} is not supported")
    mean = given.get("mean", IMAGENET_MEAN)
    facts = {
        "size": shape[1],
        "resize": modes[mode],
        "resize_to": math.floor(shape[1] / given.get("crop_pct", 0.875)),
        "interpolation": given.get("interpolation", "bicubic"),
        "mean": mean,
        "std": given.get("std", IMAGENET_STD),
    }
    if mode == "border":
        facts["fill"] = tuple(round(255 * value) for value in mean)
    return _fixed(facts)


def from_open_clip(preprocess_cfg: Mapping[str, Any]) -> Preprocess:
    """Read the configuration of an open_clip network, as its own inference transform does.

    Args:
        preprocess_cfg: ``size`` (of the network's vision side: number or pair), ``mean``, ``std``,
            ``interpolation``, ``resize_mode`` and ``fill_color``; each may be missing.

    Raises:
        EncoderError: naming what cannot be equalled.
    """
    given = {key: value for key, value in preprocess_cfg.items() if value is not None}
    size = given.get("size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise EncoderError(f"open_clip: an input of {size} is not supported; only squares are")
    fill = given.get("fill_color", 0)
    return _fixed(
        {
            "size": size if isinstance(size, int) else size[0],
            "resize": given.get("resize_mode", "shortest"),
            "resize_to": size if isinstance(size, int) else size[0],
            # "random" is for training and means bicubic here.
            "interpolation": given.get("interpolation", "bicubic").replace("random", "bicubic"),
            "mean": _three(given.get("mean", CLIP_MEAN)),
            "std": _three(given.get("std", CLIP_STD)),
            "fill": (fill,) * 3 if given.get("resize_mode") == "longest" else (0, 0, 0),
        }
    )


def _fixed(facts: Mapping[str, Any]) -> Preprocess:
    preprocess = preprocess_of(facts)
    assert isinstance(preprocess, Preprocess)
    return preprocess


def _processor(folder: Path, given: Mapping[str, Any]) -> str:
    """The image processor that a configuration asks for: a key of ``_PROCESSORS``."""
    name = given.get("image_processor_type") or given.get("feature_extractor_type")
    if name is None:
        model = read_json(folder, "config.json").get("model_type")
        for kind, models in _MODELS.items():
            if model in models:
                return kind
        raise EncoderError(f"{folder}: its preprocessor_config.json lacks image_processor_type")
    kind = str(name)
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(suffix)
    if kind not in _PROCESSORS:
        raise EncoderError(
            f"{folder}: its image processor {name} is not known; known are those of "
            f"{', '.join(sorted(_PROCESSORS))}"
        )
    return kind


def _square(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`Preprocess`."""
    resize, resize_to, size = _geometry(kind, facts)
    mean, std = _levels(kind, facts)
    return {
        "size": size,
        "resize": resize,
        "resize_to": resize_to,
        "interpolation": _filter(facts),
        "mean": mean,
        "std": std,
        "centre": "round" if resize == "squash" and size == resize_to else "floor",
        "resize_in": "float" if kind == "DINOv3ViT" else "uint8",
    }


def _patches(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`NaFlex`."""
    mean, std = _levels("Siglip2", facts)
    return {
        "patch_px": facts["patch_size"],
        "max_patches": facts["max_num_patches"],
        "interpolation": _filter(facts),
        "mean": mean,
        "std": std,
    }


def _geometry(kind: str, facts: Mapping[str, Any]) -> tuple[str, int, int]:
    """How the picture is resized, to what length, and the side that is cut out of it."""
    resize, edge = _edge(facts["size"], square=facts.get("default_to_square", True))
    cut = _edge(facts["crop_size"], square=True)[1] if facts.get("do_center_crop") else None
    if kind == "ConvNext":
        if resize != "shortest" or cut not in (None, edge):
            raise ValueError(f"size {facts['size']} with crop_size {facts.get('crop_size')}")
        # From 384 pixels on this family was evaluated without a cut.
        return (
            ("shortest", int(edge / facts["crop_pct"]), edge)
            if edge < 384
            else ("squash", edge, edge)
        )
    to = edge
    if kind == "PoolFormer":
        resize, to = "shortest", int(edge / facts["crop_pct"])
    elif kind == "Levit" and resize == "shortest":
        to = int(256 / 224 * edge)
    if resize == "shortest" and cut is None:
        raise ValueError(f"size {facts['size']} without do_center_crop keeps each picture's shape")
    return resize, to, cut or to


def _edge(value: Any, *, square: bool) -> tuple[str, int]:
    """Whether a size is of the shorter side or of both, and its number."""
    match value:
        case int():
            return ("squash" if square else "shortest"), value
        case {"shortest_edge": int(edge), **others} if not others:
            return "shortest", edge
        case {"height": int(height), "width": int(width)} | [int(height), int(width)]:
            if height == width:
                return "squash", height
    raise ValueError(f"a size of {value}")


def _filter(facts: Mapping[str, Any]) -> str:
    """The name of the resampling filter; refuses steps that nobody here does."""
    others = {key for key, value in facts.items() if value and key.startswith(("do_", "use_"))}
    if unknown := sorted(others - _STEPS):
        raise ValueError(", ".join(unknown))
    if not facts.get("do_resize", True):
        raise ValueError("do_resize is off")
    return Image.Resampling(facts.get("resample", 3)).name.lower()


def _levels(kind: str, facts: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation on values in [0, 1] that do all that is done to the levels."""
    factor = float(facts.get("rescale_factor", 1 / 255)) if facts.get("do_rescale", True) else 1.0
    mean, std = _three(0.0), _three(1.0)
    if facts.get("do_normalize", True):
        mean, std = _three(facts["image_mean"]), _three(facts["image_std"])
    if kind == "EfficientNet":
        if facts.get("rescale_offset"):
            mean = tuple(value + 1 for value in mean)
        if facts["include_top"]:
            std = tuple(a * b for a, b in zip(std, _three(facts["image_std"]), strict=True))
    if not math.isclose(unit := factor * 255, 1, rel_tol=1e-6):
        mean, std = tuple(v / unit for v in mean), tuple(v / unit for v in std)
    return mean, std


def _three(value: float | Sequence[float]) -> tuple[float, ...]:
    """One number stands for all three channels."""
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)
