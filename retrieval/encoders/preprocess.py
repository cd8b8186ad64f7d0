"""How a picture becomes a network's input: explicit, hashed, equal to the reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.images.pixels import to_rgb

Triple = tuple[float, float, float]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Resize = Literal["shortest", "longest", "squash"]
Centre = Literal["round", "floor"]
ResizeIn = Literal["uint8", "float"]

_BLACK = (0, 0, 0)
_WHOLE_PIXELS = 1 << 23
_BLOCK_PIXELS = 1 << 19


@dataclass(frozen=True)
class Preprocess:
    """Resize, cut the centre out, normalise: the same bytes as Pillow-based transforms make.

    Attributes:
        size: side of the square network input, pixels.
        resize: ``shortest`` scales the shorter side to ``resize_to`` and ``longest`` the longer
            one, both keeping the aspect ratio; ``squash`` scales both. Then the centre of
            ``size`` × ``size`` is cut out, and where the picture is smaller than that, borders of
            ``fill`` are put around it.
        resize_to: length of the scaled side or sides before the cut, pixels.
        interpolation: resampling filter, antialiased.
        mean: per RGB channel, on values in [0, 1].
        std: per RGB channel, on values in [0, 1].
        centre: how half a pixel is settled where the cut starts: ``round`` to the even pixel as
            torchvision, ``floor`` as transformers.
        fill: RGB colour of the borders, 0 to 255.
        resize_in: ``uint8`` rounds to whole levels after resizing; ``float`` does not, as the
            processor of DINOv3, which scales to [0, 1] first.
    """

    size: int
    resize: Resize
    resize_to: int
    interpolation: Interpolation
    mean: Triple
    std: Triple
    centre: Centre = "round"
    fill: tuple[int, int, int] = _BLACK
    resize_in: ResizeIn = "uint8"

    @cached_property
    def hash(self) -> str:
        """Hex digest over all fields: part of a space's identity."""
        facts = asdict(self)
        # Fields younger than the first collections count only where they are used.
        for name, unused in (("fill", _BLACK), ("resize_in", "uint8")):
            if facts[name] == unused:
                del facts[name]
        return digest(facts)

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, NDArray[Any]]:
        """Turn pictures of any size, RGB or what becomes it, into one batch.

        Returns:
            ``pixels``: contiguous float32 ``[n, 3, size, size]``.
        """
        pixels = np.empty((len(images), 3, self.size, self.size), dtype=np.float32)
        scale, shift = affine(self.mean, self.std)
        for out, image in zip(pixels, images, strict=True):
            out[...] = self.pixels(image).transpose(2, 0, 1)
            out *= scale[:, None, None]
            out -= shift[:, None, None]
        return {"pixels": pixels}

    def pixels(self, image: Image.Image) -> NDArray[np.uint8 | np.float32]:
        """Resize and cut one picture: ``[size, size, 3]``, levels 0 to 255.

        Returns:
            uint8, or float32 if ``resize_in`` is ``float``.
        """
        image = to_rgb(image)
        target = self._target(*image.size)
        if self.resize_in == "uint8":
            return np.asarray(self._cut(image, target, self.fill))
        bands = zip(_float_bands(image, target[0], self._resample), self.fill, strict=True)
        return np.stack(
            [np.asarray(self._cut(band, target, fill)) for band, fill in bands], axis=-1
        )

    @property
    def _resample(self) -> Image.Resampling:
        return Image.Resampling[self.interpolation.upper()]

    def _cut(
        self, image: Image.Image, target: tuple[int, int], fill: int | tuple[int, int, int]
    ) -> Image.Image:
        """Resize a picture of any mode and lay it, centred, on a square of ``fill``."""
        left, top = (self._start(side) for side in target)
        if target[0] * target[1] <= _WHOLE_PIXELS:
            resized = image.resize(target, self._resample)
        else:
            # A 20,000×1 strip would be blown up to gigabytes: only what the square shows of it is
            # resampled. It is not done for all, since it may be off by some levels: Pillow then
            # works with a rounded box and may change the order of its two passes.
            (x0, x1), (y0, y1) = (self._span(side) for side in target)
            sx, sy = image.width / target[0], image.height / target[1]
            box = (x0 * sx, y0 * sy, min(x1 * sx, image.width), min(y1 * sy, image.height))
            resized = image.resize((x1 - x0, y1 - y0), self._resample, box=box)
            left, top = left - x0, top - y0
        canvas = Image.new(image.mode, (self.size, self.size), fill)
        canvas.paste(resized, (-left, -top))
        return canvas

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the whole picture after resizing."""
        to = self.resize_to
        if self.resize == "squash":
            return to, to
        if self.resize == "longest":
            ratio = max(width, height) / to
            return max(round(width / ratio), 1), max(round(height / ratio), 1)
        if width <= height:
            return to, int(to * height / width)
        return int(to * width / height), to

    def _start(self, side: int) -> int:
        """Where the square starts on an axis of the resized picture; negative before it."""
        space = side - self.size
        if self.centre == "floor":
            return space // 2
        return round(space / 2) if space >= 0 else -(-space // 2)

    def _span(self, side: int) -> tuple[int, int]:
        """First and last pixel + 1 of an axis of the resized picture that the square shows."""
        start = self._start(side)
        return max(start, 0), min(start + self.size, side)


def _float_bands(image: Image.Image, width: int, resample: Image.Resampling) -> list[Image.Image]:
    """The channels as floats; those of a large photo already resized to ``width``.

    They go through the first pass of the resize in blocks that a core's cache holds: the same
    numbers three times as fast as by whole channels.
    """
    rows = _BLOCK_PIXELS // image.width
    if not 0 < rows < image.height or width * image.height > _WHOLE_PIXELS:
        return [band.convert("F") for band in image.split()]
    bands = [Image.new("F", (width, image.height)) for _ in range(3)]
    for top in range(0, image.height, rows):
        block = image.crop((0, top, image.width, min(top + rows, image.height)))
        for band, part in zip(bands, block.split(), strict=True):
            band.paste(part.convert("F").resize((width, part.height), resample), (0, top))
    return bands


def affine(mean: Triple, std: Triple) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift, ``[3]`` each, with which ``levels * scale - shift`` is normalised."""
    divisor = np.asarray(std, dtype=np.float32)
    shift: NDArray[np.float32] = np.asarray(mean, dtype=np.float32) / divisor
    return np.float32(1 / 255) / divisor, shift


def digest(facts: Mapping[str, Any]) -> str:
    """BLAKE2b-64 of ``facts`` as canonical JSON, 16 hex digits."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
