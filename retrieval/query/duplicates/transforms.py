"""Known edits, from which thresholds are fitted and benchmarks made."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

Transform = Callable[[Image.Image, np.random.Generator], Image.Image]


def resize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half the width and half the height."""
    size = (max(1, picture.width // 2), max(1, picture.height // 2))
    return picture.resize(size, Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through a JPEG file of quality 20."""
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=20)
    with Image.open(packed) as again:
        return again.convert("RGB")


def crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """80 % of each side, from anywhere."""
    width, height = (max(1, round(side * 0.8)) for side in picture.size)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def flip(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right exchanged."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 5° to either side, with black corners."""
    angle = float(rng.choice([-5.0, 5.0]))
    return picture.rotate(angle, Image.Resampling.BICUBIC)


def brightness(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """1.4 times as bright, or 0.7 times."""
    return ImageEnhance.Brightness(picture).enhance(float(rng.choice([1.4, 0.7])))


def watermark(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A half transparent band with words, somewhere in the middle half."""
    marked = picture.copy()
    draw = ImageDraw.Draw(marked, "RGBA")
    width, height = picture.size
    top = float(rng.uniform(0.25, 0.55)) * height
    band = (width * 0.1, top, width * 0.9, top + height * 0.2)
    draw.rectangle(band, fill=(255, 255, 255, 120))
    size = max(4.0, height * 0.12)
    draw.text((width * 0.15, top + height * 0.03), "SAMPLE", (200, 0, 0, 200), font_size=size)
    return marked


TRANSFORMS: Mapping[str, Transform] = MappingProxyType(
    {
        "resize": resize,
        "jpeg": jpeg,
        "crop": crop,
        "flip": flip,
        "rotate": rotate,
        "brightness": brightness,
        "watermark": watermark,
    }
)
"""Each takes an RGB picture and a source of chance, and gives a new RGB picture."""
