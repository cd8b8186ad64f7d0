"""Vision models of transformers as trunks: from the inputs to the tokens of the last layer."""

from __future__ import annotations

import math
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask


class LastHidden(nn.Module):
    """The tokens of a model's last layer, after its final norm where it has one."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap the model."""
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, side, side]`` to ``[n, prefix + places, width]``."""
        tokens: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return tokens


class Backbone(nn.Module):
    """Any vision model, maps of features as tokens."""

    def __init__(self, model: nn.Module, pooled: bool) -> None:
        """Wrap the model; ``pooled``: its own pooled output goes before the tokens."""
        super().__init__()
        self.model = model
        self.pooled = pooled

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, side, side]`` to ``[n, pooled + prefix + places, width]``."""
        found = self.model(pixel_values=pixels)
        tokens: Tensor = found.last_hidden_state
        if tokens.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        if not self.pooled:
            return tokens
        return torch.cat([found.pooler_output.flatten(1).unsqueeze(1), tokens], dim=1)


class NaFlexTrunk(nn.Module):
    """SigLIP 2 of variable resolution.

    The library resizes the positional embeddings picture by picture, in a loop that no export
    takes. Here one product does it for the whole batch.
    """

    def __init__(self, model: Any) -> None:
        """Wrap the vision model."""
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, mask: Tensor, shapes: Tensor) -> Tensor:
        """Patches ``[n, places, pixels]`` to tokens ``[n, places, width]``.

        Args:
            pixels: patches, row by row.
            mask: ``[n, places]``, 1 where there is a patch.
            shapes: ``[n, 2]``, rows and columns.
        """
        embeddings = self.model.embeddings
        table = embeddings.position_embedding.weight
        positions = resized_positions(table, shapes, pixels.shape[1])
        hidden = embeddings.patch_embedding(pixels) + positions
        attended = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=mask
        )
        hidden = self.model.encoder(inputs_embeds=hidden, attention_mask=attended)
        tokens: Tensor = self.model.post_layernorm(hidden.last_hidden_state)
        return tokens


def resize_positions_once(embeddings: Any, side_px: int) -> None:
    """Resize the positional embeddings of DINOv2 now, instead of in every forward pass.

    Args:
        embeddings: the module that has them; changed.
        side_px: of the square input.
    """
    with torch.no_grad():
        patches = embeddings.patch_embeddings(torch.zeros(1, 3, side_px, side_px))
        tokens = torch.cat([embeddings.cls_token, patches], dim=1)
        fixed = embeddings.interpolate_pos_encoding(tokens, side_px, side_px)
    embeddings.position_embeddings = nn.Parameter(fixed)
    embeddings.interpolate_pos_encoding = MethodType(
        lambda self, *_: self.position_embeddings, embeddings
    )


def resized_positions(table: Tensor, shapes: Tensor, places: int) -> Tensor:
    """Positional embeddings resized to the shape of each picture.

    As ``interpolate`` does with ``bilinear`` and ``antialias``, except where a picture has a single
    column: there torch 2.15 on a CPU gives every row the first one's embedding, and this does not.

    Args:
        table: ``[side * side, width]``.
        shapes: ``[n, 2]``, rows and columns.
        places: rows * columns at most.

    Returns:
        ``[n, places, width]``; behind the last place of a picture, anything.
    """
    side = math.isqrt(table.shape[0])
    at = torch.arange(places, device=table.device)
    rows, columns = shapes[:, :1], shapes[:, 1:]
    down = _resampled(at // columns, rows, side)
    across = _resampled(at % columns, columns, side)
    weights = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(2)
    return (weights @ table.float()).to(table.dtype)


def _resampled(at: Tensor, length: Tensor, size: int) -> Tensor:
    """Weights of ``size`` samples in each place of an axis resized to ``length``.

    Args:
        at: places ``[n, places]``; those from ``length`` on are padding.
        length: ``[n, 1]``.
        size: length of the axis before.

    Returns:
        float32 ``[n, places, size]``, of a triangle filter.
    """
    scale = size / length
    centre = (at.minimum(length - 1) + 0.5) * scale
    distance = torch.arange(size, device=at.device) + 0.5 - centre.unsqueeze(-1)
    weights = (1 - distance.abs() / scale.clamp(min=1).unsqueeze(-1)).clamp(min=0)
    return weights / weights.sum(dim=-1, keepdim=True)
