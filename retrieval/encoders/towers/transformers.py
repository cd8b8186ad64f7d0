"""Towers cut out of transformers' models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import Attention, Cls, Pool, named_pool, projected
from retrieval.encoders.towers.reading import read
from retrieval.encoders.towers.texts import CausalText, PooledText
from retrieval.encoders.towers.towers import Tower, Towers
from retrieval.encoders.towers.trunks import Backbone, LastHidden, NaFlexTrunk, Unmasked

_PATCHES = ("pixels", "mask", "shapes")


def towers(folder: Path, model_class: str, build: str, pooling: str, prefix: int) -> Towers:
    """Read a checkpoint and cut its towers out.

    Args:
        folder: what ``save_pretrained`` wrote.
        model_class: the class of transformers that reads it.
        build: how towers are cut out of that class, a key of the table below.
        pooling: for visual encoders: how the last layer becomes one vector.
        prefix: tokens before those of the places.

    Raises:
        EncoderError: if weights are damaged, missing or of another shape.
    """
    built: Towers = _BUILD[build](read(folder, model_class), pooling, prefix)
    return built


def _visual(model: Any, pooling: str, prefix: int) -> Towers:
    pool = Cls(prefix) if pooling == "mean-norm" else named_pool(pooling, prefix)
    return _images(LastHidden(model), pool)


def _mae(model: Any, pooling: str, prefix: int) -> Towers:
    return _images(Unmasked(model), named_pool(pooling, prefix))


def _backbone(model: Any, pooling: str, prefix: int) -> Towers:
    if pooling == "pooler":
        return _images(Backbone(model, pooled=True), Cls(1 + prefix))
    return _images(Backbone(model, pooled=False), named_pool(pooling, prefix))


def _clip_vision(model: Any, pooling: str, prefix: int) -> Towers:
    if pooling == "cls-projection":
        return _images(LastHidden(model.vision_model), _clip_pool(model, prefix))
    # The library norms what CLS gives; what is pooled otherwise is normed token by token.
    normed = nn.Sequential(LastHidden(model), model.post_layernorm)
    return _images(normed, named_pool(pooling, prefix))


def _head_vision(model: Any, pooling: str, prefix: int) -> Towers:
    pool = Attention(model.head) if pooling == "attention" else named_pool(pooling, prefix)
    return _images(LastHidden(model), pool)


def _naflex_vision(model: Any, pooling: str, prefix: int) -> Towers:
    pool: Pool = named_pool(pooling, prefix) if pooling != "attention" else _masked_head(model)
    return _images(NaFlexTrunk(model), pool, _PATCHES)


def _clip(model: Any, _: str, prefix: int) -> Towers:
    text = PooledText(model.text_model, model.text_projection)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model, prefix), text)


def _altclip(model: Any, _: str, prefix: int) -> Towers:
    text = PooledText(model.text_model, model.text_projection, masked=True)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model, prefix), text)


def _chinese_clip(model: Any, _: str, prefix: int) -> Towers:
    text = PooledText(model.text_model, model.text_projection, masked=True, first=True)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model, prefix), text)


def _aimv2(model: Any, _: str, __: int) -> Towers:
    vision = model.vision_model
    pool = projected(Attention(vision.head), model.visual_projection)
    text = CausalText(model.text_model, model.text_projection)
    return _aligned(model, LastHidden(vision), pool, text)


def _siglip(model: Any, _: str, __: int) -> Towers:
    vision = model.vision_model
    return _aligned(model, LastHidden(vision), Attention(vision.head), PooledText(model.text_model))


def _naflex(model: Any, _: str, __: int) -> Towers:
    vision, text = model.vision_model, PooledText(model.text_model)
    return _aligned(model, NaFlexTrunk(vision), _masked_head(vision), text, _PATCHES)


_BUILD: dict[str, Callable[[Any, str, int], Towers]] = {
    "aimv2": _aimv2,
    "aimv2-vision": _head_vision,
    "altclip": _altclip,
    "backbone": _backbone,
    "chinese-clip": _chinese_clip,
    "clip": _clip,
    "clip-vision": _clip_vision,
    "mae": _mae,
    "naflex": _naflex,
    "naflex-vision": _naflex_vision,
    "siglip": _siglip,
    "siglip-vision": _head_vision,
    "visual": _visual,
}


def _clip_pool(model: Any, prefix: int) -> Pool:
    return projected(Cls(prefix), model.vision_model.post_layernorm, model.visual_projection)


def _masked_head(vision: Any) -> Pool:
    return Attention(vision.head, masked=True)


def _images(trunk: nn.Module, pool: Pool, inputs: tuple[str, ...] = ("pixels",)) -> Towers:
    return Towers(image=ImageTower(trunk, pool, inputs), patches=PatchTower(trunk, pool, inputs))


def _aligned(
    model: Any, trunk: nn.Module, pool: Pool, text: Tower, inputs: tuple[str, ...] = ("pixels",)
) -> Towers:
    images = _images(trunk, pool, inputs)
    scale = model.logit_scale.detach()
    if hasattr(model, "max_log_logit_scale"):  # AIMv2 bounds it when it is used
        scale = scale.clamp(0, model.max_log_logit_scale)
    bias = getattr(model, "logit_bias", None)
    return Towers(
        image=images.image,
        patches=images.patches,
        text=text,
        logit_scale=float(scale.exp()),
        logit_bias=None if bias is None else float(bias.detach()),
    )
