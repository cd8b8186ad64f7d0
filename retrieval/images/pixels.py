"""Any pixel format to 8-bit RGB without losing what a person would see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHITE = (255, 255, 255)
_FROM_16_BIT = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture of any Pillow mode to RGB; an RGB one comes back itself.

    Transparent parts show white. 16-bit gray is scaled over its full range. For 32-bit integers
    and floats, whose range no header tells, see :func:`stretch`.

    Raises:
        ValueError: if Pillow knows no way from this mode to RGB.
    """
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, _WHITE)
        canvas.paste(rgba, mask=rgba)
        return canvas
    if image.mode.startswith("I;16"):
        return Image.fromarray(_FROM_16_BIT[np.asarray(image)]).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(stretch(np.asarray(image))).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map numbers of unknown range to uint8, same shape.

    Taken as they are if integers in [0, 255], as full range if floats in [0, 1] or integers in
    [0, 65535], otherwise stretched from their smallest to their largest finite value. NaN is 0.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN; errstate is local to this thread
        numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = float(numbers[finite].min()), float(numbers[finite].max())
    whole = np.issubdtype(values.dtype, np.integer)
    for top in (255.0, 65535.0) if whole else (1.0,):
        if low >= 0 and high <= top:
            low, high = 0.0, top
            break
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    # float64 holds every float32 difference, and a flat picture becomes black, not a division.
    return np.asarray(np.rint((numbers - low) * (255.0 / ((high - low) or 1.0))), dtype=np.uint8)
