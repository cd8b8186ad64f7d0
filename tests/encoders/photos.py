"""Varied real photos, as the decoder gives them: odd shapes, sizes and pixel formats."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import skimage.data
from PIL import Image

from retrieval.images import decode

_NAMES = ("astronaut", "brick", "camera", "cat", "coffee", "coins", "moon", "page", "rocket")


@cache
def varied() -> tuple[Image.Image, ...]:
    """27 upright RGB pictures: photos of 1×1 to 4200×3100 pixels, aspect ratios 1:60 to 60:1."""
    whole = [Image.fromarray(getattr(skimage.data, name)()) for name in _NAMES]
    coffee, cat = whole[4], whole[3]
    boxes = (
        (100, 100, 101, 101),
        (100, 100, 107, 103),
        (0, 100, 600, 110),
        (100, 0, 117, 400),
        (30, 40, 254, 264),
        (30, 40, 286, 296),
        (1, 1, 400, 312),
        (1, 1, 226, 400),
        (0, 0, 599, 398),
    )
    pieces = [coffee.crop(box) for box in boxes]
    huge = coffee.resize((4200, 3100), Image.Resampling.BICUBIC)
    strips = [huge.crop((0, 1500, 4200, 1570)), cat.resize((30, 1800))]
    decoded = [_decoded(picture) for picture in (*whole, *pieces, *strips)]
    return (*decoded, huge, *_formats(whole[0], whole[2]))


def _formats(photo: Image.Image, gray: Image.Image) -> tuple[Image.Image, ...]:
    """Files whose pixels are not plain RGB: each is one picture after decoding."""
    ramp = Image.fromarray(np.tile(np.arange(512, dtype=np.uint16) // 2, (512, 1)).astype(np.uint8))
    see_through = photo.copy()
    see_through.putalpha(ramp)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    rotated = Image.Exif()
    rotated[274] = 6
    wide = photo.crop((0, 100, 512, 400))
    return (
        _decoded(see_through),
        _decoded(gray.convert("LA")),
        _decoded(deep),
        _decoded(photo.quantize(16)),
        _decoded(wide, "JPEG", exif=rotated),
        _decoded(photo.convert("CMYK"), "JPEG"),
    )


def _decoded(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return decode(file.getvalue()).image
