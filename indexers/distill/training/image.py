"""The image side of a student: a small convolutional network that starts from ImageNet weights.

Architecture: EfficientNet-Lite0 (Tan and Le, "EfficientNet", 2019), with fewer blocks, fed with
smaller pictures. Its batch-norms are folded into the convolutions before training starts: on a few
thousand pictures they are worth nothing, and they take a quarter of the time of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.towers import Tower

_EPSILON = 1e-3
_STEM, _WIDTH = 32, 1280
# (blocks of the original, blocks that are kept, kernel, stride of the first, expansion, channels)
_STAGES = (
    (1, 1, 3, 1, 1, 16),
    (2, 2, 3, 2, 6, 24),
    (2, 2, 5, 2, 6, 40),
    (3, 2, 3, 2, 6, 80),
    (3, 2, 5, 1, 6, 112),
    (4, 2, 5, 2, 6, 192),
    (1, 1, 3, 1, 6, 320),
)


class ImageStudent(Tower):
    """Normalised pixels ``[n, 3, side, side]`` to ``embedding`` ``[n, dim]``, any odd side.

    Every stride halves an odd side to an odd or even one, of which the network's own padding
    (TensorFlow's ``SAME``) and the symmetric one here agree for odd sides; an even side costs half
    a pixel, which training mends.
    """

    inputs = ("pixels",)

    def __init__(self, dim: int) -> None:
        """Make the network, untrained."""
        super().__init__()
        self.stem = _conv(3, _STEM, 3, stride=2)
        blocks, width = [], _STEM
        for _, kept, kernel, stride, expansion, channels in _STAGES:
            for repeat in range(kept):
                blocks.append(_Block(width, channels, kernel, 1 if repeat else stride, expansion))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.wide = _conv(width, _WIDTH, 1)
        self.head = nn.Linear(_WIDTH, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, dim]``, not normalised."""
        x = self.blocks(F.relu6(self.stem(pixels)))
        embedding: Tensor = self.head(F.relu6(self.wide(x)).mean((2, 3)))
        return embedding


class _Block(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """An inverted residual: expand, depthwise, project; a shortcut where shapes agree."""

    def __init__(self, width: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = _conv(width, inner, 1) if expansion > 1 else None
        self.depthwise = _conv(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _conv(inner, channels, 1)
        self.shortcut = stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


def pretrained(dim: int, state: Mapping[str, NDArray[Any]], seed: int) -> ImageStudent:
    """A student with the weights of EfficientNet-Lite0 and a head of its own.

    Args:
        dim: length of the teacher's embeddings.
        state: the original's state dict, as :func:`retrieval.encoders.pocket.weights.load` gives.
        seed: of the head.
    """
    torch.manual_seed(seed)
    student = ImageStudent(dim)
    _fill(student.stem, state, "_conv_stem", "_bn0")
    original = block = 0
    for there, kept, *_ in _STAGES:
        for repeat in range(kept):
            name = f"_blocks.{original + repeat}"
            mine = student.blocks[block]
            if mine.expand is not None:
                _fill(mine.expand, state, f"{name}._expand_conv", f"{name}._bn0")
            _fill(mine.depthwise, state, f"{name}._depthwise_conv", f"{name}._bn1")
            _fill(mine.project, state, f"{name}._project_conv", f"{name}._bn2")
            block += 1
        original += there
    _fill(student.wide, state, "_conv_head", "_bn1")
    return student


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def _fill(conv: nn.Conv2d, state: Mapping[str, NDArray[Any]], name: str, norm: str) -> None:
    """Set a convolution to the original's with its batch-norm folded in."""
    mean, variance, gain, shift = (
        np.float64(state[f"{norm}.{part}"])
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gain / np.sqrt(variance + _EPSILON)
    kernel = state[f"{name}.weight"] * scale[:, None, None, None]
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(kernel))
        conv.bias.copy_(torch.from_numpy(shift - mean * scale))
