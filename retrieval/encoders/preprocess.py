"""How a picture becomes a network's input: explicit, hashed, equal to the reference."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalise, as torchvision's PIL transforms do.

    Attributes:
        size: side of the square network input, pixels.
        resize: ``shortest`` scales the shorter side to ``resize_to`` keeping the aspect ratio and
            cuts the centre out; ``squash`` scales both sides to ``size``.
        resize_to: length of the shorter side before the centre crop (``shortest`` only).
        interpolation: resampling filter, antialiased.
        mean: per RGB channel, on values in [0, 1].
        std: per RGB channel, on values in [0, 1].
        centre: how half a pixel is settled where the centre crop starts (``shortest`` only):
            ``round`` to the even pixel as torchvision, ``floor`` as transformers.
    """

    size: int
    resize: Literal["shortest", "squash"]
    resize_to: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    centre: Literal["round", "floor"] = "round"

    @cached_property
    def hash(self) -> str:
        """Hex digest over all fields: part of a space's identity."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one RGB picture to uint8 ``[size, size, 3]``."""
        resample = _FILTERS[self.interpolation]
        if self.resize == "squash":
            return np.asarray(image.resize((self.size, self.size), resample))
        width, height = image.size
        short, long = sorted((width, height))
        scaled = max(int(self.resize_to * long / short), self.size)
        target = (self.resize_to, scaled) if width <= height else (scaled, self.resize_to)
        settle = math.floor if self.centre == "floor" else round
        left, top = (settle((side - self.size) / 2) for side in target)
        # Only the part of the picture that survives the crop is resampled: a 20,000×1 strip
        # would otherwise be blown up to gigabytes before the crop.
        sx, sy = width / target[0], height / target[1]
        box = (left * sx, top * sy, (left + self.size) * sx, (top + self.size) * sy)
        return np.asarray(image.resize((self.size, self.size), resample, box=box))

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Turn RGB pictures into one contiguous float32 batch ``[n, 3, size, size]``."""
        batch = np.empty((len(images), self.size, self.size, 3), dtype=np.uint8)
        for row, image in enumerate(images):
            batch[row] = self.pixels(image)
        std = np.asarray(self.std, dtype=np.float32)
        scale: NDArray[np.float32] = np.float32(1 / 255) / std
        shift: NDArray[np.float32] = np.asarray(self.mean, dtype=np.float32) / std
        planes = batch.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        planes *= scale[:, None, None]
        planes -= shift[:, None, None]
        return planes
