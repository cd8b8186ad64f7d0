"""Towers cut out of timm's networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.utils import reparameterize_model
from torch import Tensor, nn

from retrieval.encoders.layout import Layout
from retrieval.encoders.towers.image import ImageTower, PatchTower
from retrieval.encoders.towers.pools import Pool, named_pool
from retrieval.encoders.towers.towers import Towers
from retrieval.errors import EncoderError


def layout_of(folder: Path, size: int, name: str | None = None) -> Layout:
    """The layout of a network for square pictures of ``size`` pixels.

    Nothing is computed and no weights are read: the network is built without memory.

    Args:
        folder: the checkpoint.
        size: of the pictures.
        name: of the network; by default what ``config.json`` of timm in the folder names.

    Raises:
        EncoderError: if timm does not know or cannot build the network.
    """
    with _building(folder), torch.device("meta"):
        return _measured(timm.create_model(name or f"local-dir:{folder}", num_classes=0), size)


def _measured(model: Any, size: int) -> Layout:
    with torch.inference_mode():
        features = model.eval().forward_features(torch.empty(1, 3, size, size, device="meta"))
        pooled = model.forward_head(features, pre_logits=True)
    prefix = getattr(model, "num_prefix_tokens", 0)
    return Layout(
        name=type(model).__name__,
        shape=tuple(features.shape[1:]) if isinstance(features, Tensor) else (),
        channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
        prefix=prefix,
        has_cls=prefix > 0 and getattr(model, "cls_token", None) is not None,
        dim=pooled.shape[-1],
    )


def towers(folder: Path, file: Path, layout: Layout, pooling: str | None) -> Towers:
    """Read a checkpoint and cut its towers out.

    Args:
        folder: holds ``config.json`` of timm.
        file: the weights.
        layout: of the network, from :func:`layout_of`.
        pooling: ``cls``, ``mean``, ``cls+mean`` or ``gem``; None for the network's own.

    Raises:
        EncoderError: if weights are damaged, missing or of another network.
    """
    model = _model(folder, file)
    trunk = Features(model, layout)
    pool: Pool = Own(Head(model, layout), layout.prefix)
    if pooling is not None:
        pool = named_pool(pooling, layout.prefix)
    return Towers(
        image=ImageTower(trunk, pool).eval(),
        patches=None if layout.side is None else PatchTower(trunk, pool).eval(),
    )


class Features(nn.Module):
    """The last layer of a network of timm, as tokens where it is one tensor."""

    def __init__(self, model: Any, layout: Layout) -> None:
        """Wrap the network, whose parts for inference are fused where it has such."""
        super().__init__()
        self.model = reparameterize_model(model, inplace=True)
        self.is_map = len(layout.shape) == 3
        self.channels_last = layout.channels_last

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, side, side]`` to ``[n, prefix + places, width]``."""
        features: Tensor = self.model.forward_features(pixels)
        if not self.is_map:
            return features
        return features.flatten(1, 2) if self.channels_last else features.flatten(2).transpose(1, 2)


class Head(nn.Module):
    """What a network of timm does with its last layer: its own pooling, norm and projection.

    Args:
        model: the network.
        layout: of the network.
        project: what a wrapper puts behind it, and behind the network's classifier, which then is
            part of the projection.
    """

    def __init__(self, model: Any, layout: Layout, project: nn.Module | None = None) -> None:
        """Wrap the network."""
        super().__init__()
        self.model = model
        self.project = project
        self.is_map = len(layout.shape) == 3
        self.channels_last = layout.channels_last
        self.side = layout.side or 0

    def forward(self, tokens: Tensor) -> Tensor:
        """``[n, prefix + places, width]`` to ``[n, dim]``."""
        features = self._as_map(tokens) if self.is_map else tokens
        embedding: Tensor = self.model.forward_head(features, pre_logits=self.project is None)
        return embedding if self.project is None else self.project(embedding)

    def _as_map(self, tokens: Tensor) -> Tensor:
        n, places, width = tokens.shape
        side = self.side if places > 1 else 1
        if self.channels_last:
            return tokens.reshape(n, side, side, width)
        return tokens.transpose(1, 2).reshape(n, width, side, side)


class Own(Pool):
    """A network's own way from tokens to an embedding.

    Args:
        head: module from tokens ``[n, prefix + places, width]`` to ``[n, dim]``.
        prefix: tokens before the places.
        aligned: whether a place shall be pooled as if it were the only one, so that it lies in
            the space of embeddings; otherwise it stays what the last layer says.
    """

    def __init__(self, head: nn.Module, prefix: int = 0, *, aligned: bool = False) -> None:
        """Wrap the head."""
        super().__init__(prefix)
        self.head = head
        self.aligned = aligned

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool as the network does."""
        embedding: Tensor = self.head(tokens)
        return embedding

    def each(self, places: Tensor) -> Tensor:
        """One place at a time, standing for the tokens before the places too."""
        if not self.aligned:
            return places
        n, count, width = places.shape
        alone = places.reshape(n * count, 1, width).expand(-1, self.prefix + 1, -1)
        pooled: Tensor = self.head(alone)
        return pooled.reshape(n, count, -1)


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Explain what timm cannot build."""
    try:
        yield
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
        RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise EncoderError(
            f"{folder}: timm {timm.__version__} cannot build the image encoder that its "
            f"configuration names ({error}); a newer timm may: pip install --upgrade timm"
        ) from error


def _model(folder: Path, file: Path) -> Any:
    """The network with its weights, without classifier; refuses what does not fit exactly."""
    with _building(folder):
        model = timm.create_model(f"local-dir:{folder}", num_classes=0)
    try:
        # timm's own translation of older names, which it applies to every checkpoint.
        entry = timm.models.model_entrypoint(model.pretrained_cfg["architecture"])
        translated = getattr(sys.modules[entry.__module__], "checkpoint_filter_fn", None)
        state = load_file(file)
        report = model.load_state_dict(translated(state, model) if translated else state, False)
    except (SafetensorError, OSError, RuntimeError, LookupError, ValueError) as error:
        raise EncoderError(
            f"{file} is damaged or of another network than config.json names ({error}); "
            "delete it and get it again"
        ) from error
    extra = set(report.unexpected_keys)
    if extra:
        with _building(folder), torch.device("meta"):
            extra -= set(timm.create_model(f"local-dir:{folder}").state_dict())
    if odd := sorted(report.missing_keys) or sorted(extra):
        verb = "lacks" if report.missing_keys else "has unknown"
        raise EncoderError(
            f"{file} {verb} weights of {type(model).__name__}: {', '.join(odd[:3])}…"
        )
    return model
