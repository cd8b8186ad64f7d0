"""Checkpoint folders of timm, as its ``push_to_hf_hub`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.layouts import layout
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.layout import Layout
from retrieval.encoders.preprocess_config import from_timm
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.towers import Towers

WEIGHTS = "model.safetensors"

# What people call networks whose class says less, by a part of ``architecture.tag``.
_FAMILIES = {
    "dinov2": "DINOv2",
    "dinov3": "DINOv3",
    "eva02": "EVA-02",
    "aimv2": "AIMv2",
    "ijepa": "I-JEPA",
    "mclip": "MobileCLIP",
    "siglip": "SigLIP",
    "clip": "CLIP",
    "mae": "MAE",
}
_POOLINGS = {"token": "cls", "avg": "mean", "map": "attention"}


def open_checkpoint(folder: Path, config: Mapping[str, Any], pooling: str | None) -> Checkpoint:
    """Read the facts of a folder; see :func:`~retrieval.encoders.checkpoints.open_folder`."""
    given = config.get("pretrained_cfg", config)
    file = folder / WEIGHTS
    if not file.is_file():
        raise EncoderError(
            f"{folder} has no {WEIGHTS}; only safetensors are loaded "
            "(timm.models.push_to_hf_hub(…, safe_serialization=True) writes them)"
        )
    try:
        preprocess = from_timm(given)
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from error
    found = layout(folder, config, preprocess.size)
    _check(folder, found, pooling)
    family = _family(config["architecture"], given.get("tag"), found.name)
    spec = EncoderSpec(
        name=str(folder),
        family=family,
        dim=found.dim if pooling is None else found.width * (1 + (pooling == "cls+mean")),
        modalities=("image",),
        preprocess=preprocess,
        pooling=pooling or _own_pooling(config),
        source=str(folder),
        revision="local",
        licence=given.get("license") or "unknown: see where the folder came from",
        size_mb=round(file.stat().st_size / 1e6, 1),
        summary=f"{config['architecture']} of timm in a local folder",
        library="timm",
        patch_px=None if found.side is None else round(preprocess.size / found.side),
    )
    return Checkpoint(
        folder=folder,
        spec=spec,
        files=(file,),
        towers=partial(_towers, folder, file, found, pooling),
    )


def _check(folder: Path, layout: Layout, pooling: str | None) -> None:
    """Refuse a pooling of tokens that the network does not have."""
    if pooling in ("cls", "cls+mean") and not layout.has_cls:
        raise EncoderError(f"{folder}: {layout.name} has no CLS token; leave out :{pooling}")
    if pooling is not None and pooling != "cls" and layout.side is None:
        raise EncoderError(f"{folder}: {layout.name} gives no patches; leave out :{pooling}")


def _own_pooling(config: Mapping[str, Any]) -> str:
    named = str(config.get("global_pool") or "own")
    return _POOLINGS.get(named, named)


def _family(architecture: str, tag: str | None, kind: str) -> str:
    full = f"{architecture}.{tag}"
    return next((label for part, label in _FAMILIES.items() if part in full), kind)


def _towers(folder: Path, file: Path, layout: Layout, pooling: str | None) -> Towers:
    require("torch", "timm")
    from retrieval.encoders.towers.timm import towers

    return towers(folder, file, layout, pooling)
