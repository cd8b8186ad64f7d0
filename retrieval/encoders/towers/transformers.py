"""Towers cut out of transformers' models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import logging

from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import Attention, Cls, Pool, named_pool, projected
from retrieval.encoders.towers.towers import Tower, Towers
from retrieval.errors import EncoderError


def towers(folder: Path, model_class: str, build: str, pooling: str) -> Towers:
    """Read a checkpoint and cut its towers out.

    Args:
        folder: what ``save_pretrained`` wrote.
        model_class: the class of transformers that reads it.
        build: how towers are cut out of that class, a key of the table below.
        pooling: for visual encoders: ``cls``, ``mean``, ``cls+mean`` or ``gem``.

    Raises:
        EncoderError: if weights are damaged, missing or of another shape.
    """
    model = _model(folder, model_class)
    built: Towers = _BUILD[build](model, pooling)
    return built


class LastHidden(nn.Module):
    """The tokens of a vision model's last layer, after its final norm where it has one."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap the model."""
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, side, side]`` to ``[n, prefix + places, width]``."""
        tokens: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return tokens


class PooledText(Tower):
    """A text model's own pooled output, projected where the checkpoint projects it."""

    inputs = ("ids",)

    def __init__(self, model: nn.Module, project: nn.Module | None = None) -> None:
        """Wrap the text side alone: the image side may run in another precision."""
        super().__init__()
        self.model = model
        self.project = project or nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """``[n, length]`` to ``[n, dim]``."""
        embedding: Tensor = self.project(self.model(input_ids=ids).pooler_output)
        return embedding


def _visual(model: Any, pooling: str) -> Towers:
    registers = getattr(model.config, "num_register_tokens", 0)
    return _images(LastHidden(model), named_pool(pooling, 1 + registers))


def _clip(model: Any, _: str) -> Towers:
    vision = model.vision_model
    pool = projected(Cls(1), vision.post_layernorm, model.visual_projection)
    text = PooledText(model.text_model, model.text_projection)
    return _aligned(model, LastHidden(vision), pool, text)


def _siglip(model: Any, _: str) -> Towers:
    vision = model.vision_model
    return _aligned(model, LastHidden(vision), Attention(vision.head), PooledText(model.text_model))


_BUILD: dict[str, Callable[[Any, str], Towers]] = {
    "visual": _visual,
    "clip": _clip,
    "siglip": _siglip,
}


def _images(trunk: nn.Module, pool: Pool) -> Towers:
    return Towers(image=ImageTower(trunk, pool), patches=PatchTower(trunk, pool))


def _aligned(model: Any, trunk: nn.Module, pool: Pool, text: Tower) -> Towers:
    bias = getattr(model, "logit_bias", None)
    return Towers(
        image=ImageTower(trunk, pool),
        patches=PatchTower(trunk, pool),
        text=text,
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=None if bias is None else float(bias.detach()),
    )


def _model(folder: Path, class_name: str) -> Any:
    """Read the weights into the model class, refusing what does not fit exactly."""
    try:
        with _quiet():
            model, report = getattr(transformers, class_name).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"the checkpoint in {folder} is damaged or incomplete ({error}); delete it and get it "
            "again"
        ) from error
    # transformers fills weights that the file lacks with random numbers and only logs it.
    if absent := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise EncoderError(
            f"the checkpoint in {folder} lacks weights of {class_name}: {', '.join(absent[:3])}…"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bar over local tensors off the terminal."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
