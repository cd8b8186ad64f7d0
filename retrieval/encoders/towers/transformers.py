"""Towers cut out of transformers' models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import Attention, Cls, Pool, named_pool, projected
from retrieval.encoders.towers.reading import read
from retrieval.encoders.towers.texts import CausalText, PooledText
from retrieval.encoders.towers.towers import Tower, Towers
from retrieval.encoders.towers.trunks import (
    Backbone,
    LastHidden,
    NaFlexTrunk,
    resize_positions_once,
)

_PATCHES = ("pixels", "mask", "shapes")


@dataclass(frozen=True, slots=True)
class Cut:
    """How towers are cut out of a model.

    Attributes:
        build: a key of the table below.
        pooling: how the last layer becomes one vector.
        prefix: tokens before those of the places.
        side_px: of the input; for variable resolution, of a square one.
    """

    build: str
    pooling: str
    prefix: int
    side_px: int


def towers(folder: Path, model_class: str, cut: Cut) -> Towers:
    """Read a checkpoint and cut its towers out.

    Args:
        folder: what ``save_pretrained`` wrote.
        model_class: the class of transformers that reads it.
        cut: how.

    Raises:
        EncoderError: if weights are damaged, missing or of another shape.
    """
    built: Towers = _BUILD[cut.build](read(folder, model_class), cut)
    for _, tower in built:
        tower.eval()
    return built


def _visual(model: Any, cut: Cut) -> Towers:
    return _images(LastHidden(model), _named(cut))


def _dinov2(model: Any, cut: Cut) -> Towers:
    resize_positions_once(model.embeddings, cut.side_px)
    return _visual(model, cut)


def _convnext(model: Any, cut: Cut) -> Towers:
    # In the place of CLS stands the norm of the mean of the places.
    return _images(LastHidden(model), Cls(1) if cut.pooling == "mean-norm" else _named(cut))


def _mae(model: Any, cut: Cut) -> Towers:
    # Every patch, in the order of the picture, instead of a random quarter in random order.
    model.embeddings.random_masking = lambda tokens, _: (tokens, None, None)
    return _images(LastHidden(model), _named(cut))


def _backbone(model: Any, cut: Cut) -> Towers:
    if cut.pooling == "pooler":
        return _images(Backbone(model, pooled=True), Cls(1 + cut.prefix))
    return _images(Backbone(model, pooled=False), _named(cut))


def _clip_vision(model: Any, cut: Cut) -> Towers:
    if cut.pooling == "cls-projection":
        return _images(LastHidden(model.vision_model), _clip_pool(model))
    # The library norms what CLS gives; what is pooled otherwise is normed token by token.
    return _images(nn.Sequential(LastHidden(model), model.post_layernorm), _named(cut))


def _head_vision(model: Any, cut: Cut) -> Towers:
    pool = Attention(model.head) if cut.pooling == "attention" else _named(cut)
    return _images(LastHidden(model), pool)


def _naflex_vision(model: Any, cut: Cut) -> Towers:
    pool = _masked_head(model) if cut.pooling == "attention" else _named(cut)
    return _images(NaFlexTrunk(model), pool, _PATCHES)


def _clip(model: Any, _: Cut) -> Towers:
    text = PooledText(model.text_model, model.text_projection)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model), text)


def _altclip(model: Any, _: Cut) -> Towers:
    text = PooledText(model.text_model, model.text_projection, masked=True)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model), text)


def _chinese_clip(model: Any, _: Cut) -> Towers:
    text = PooledText(model.text_model, model.text_projection, masked=True, first=True)
    return _aligned(model, LastHidden(model.vision_model), _clip_pool(model), text)


def _aimv2(model: Any, _: Cut) -> Towers:
    vision = model.vision_model
    pool = projected(Attention(vision.head), model.visual_projection)
    text = CausalText(model.text_model, model.text_projection)
    return _aligned(model, LastHidden(vision), pool, text)


def _siglip(model: Any, _: Cut) -> Towers:
    vision = model.vision_model
    return _aligned(model, LastHidden(vision), Attention(vision.head), PooledText(model.text_model))


def _naflex(model: Any, _: Cut) -> Towers:
    vision, text = model.vision_model, PooledText(model.text_model)
    return _aligned(model, NaFlexTrunk(vision), _masked_head(vision), text, _PATCHES)


_BUILD: dict[str, Callable[[Any, Cut], Towers]] = {
    "aimv2": _aimv2,
    "aimv2-vision": _head_vision,
    "altclip": _altclip,
    "backbone": _backbone,
    "chinese-clip": _chinese_clip,
    "clip": _clip,
    "clip-vision": _clip_vision,
    "convnext": _convnext,
    "dinov2": _dinov2,
    "mae": _mae,
    "naflex": _naflex,
    "naflex-vision": _naflex_vision,
    "siglip": _siglip,
    "siglip-vision": _head_vision,
    "visual": _visual,
}


def _named(cut: Cut) -> Pool:
    return named_pool(cut.pooling, cut.prefix)


def _clip_pool(model: Any) -> Pool:
    return projected(Cls(1), model.vision_model.post_layernorm, model.visual_projection)


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
