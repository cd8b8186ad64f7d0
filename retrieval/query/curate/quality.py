"""What the pixels of a picture say of its quality, without any encoder.

All of it is measured on the stored thumbnail (longest side up to 256 pixels): how the picture looks
at that size. Blur that is finer than a pixel of the thumbnail does not show.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BINS = 16  # a colour channel; 4,096 colours

FACTS = ("sharpness", "brightness", "contrast", "information", "uniform", "aspect")
"""Columns of numbers, in this order; ``issues`` comes beside them."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Facts of one picture.

    Attributes:
        sharpness: variance of the Laplacian of the gray picture (0 to 255), 0 and up
            (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy").
        brightness: mean luma, 0 to 1 (ITU-R BT.601).
        contrast: standard deviation of the luma, 0 to 0.5.
        information: Shannon entropy of the luma's histogram of 256 bins, 0 to 8 bits.
        uniform: share of the pixels in the most common of 4,096 colours, 0 to 1.
        aspect: width / height of the original; None where that is unknown.
    """

    sharpness: float
    brightness: float
    contrast: float
    information: float
    uniform: float
    aspect: float | None


ISSUES: Mapping[str, tuple[str, Callable[[Quality], bool]]] = {
    "blurry": (
        "sharpness < 40 and contrast > 0.08",
        lambda q: q.sharpness < 40 and q.contrast > 0.08,
    ),
    "dark": ("brightness < 0.12", lambda q: q.brightness < 0.12),
    "bright": ("brightness > 0.92", lambda q: q.brightness > 0.92),
    "low contrast": ("contrast < 0.04", lambda q: q.contrast < 0.04),
    "low information": ("information < 3.5", lambda q: q.information < 3.5),
    "nearly uniform": ("uniform > 0.9", lambda q: q.uniform > 0.9),
    "odd aspect": (
        "aspect > 3 or aspect < 0.333",
        lambda q: q.aspect is not None and not 0.333 <= q.aspect <= 3,
    ),
}
"""What is called an issue, as a filter says it and as the code tests it."""


def measure(packed: bytes, size: tuple[int, int] | None) -> Quality:
    """Facts of a stored thumbnail.

    Args:
        packed: the thumbnail (WebP).
        size: width and height of the original, if they are known.
    """
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as picture:
        colour = picture.convert("RGB")
    gray = np.asarray(colour.convert("L"))
    counts = np.bincount(gray.ravel(), minlength=256)
    share = counts[counts > 0] / gray.size
    levels = np.arange(256) / 255
    brightness = float(counts @ levels) / gray.size
    variance = float(counts @ (levels - brightness) ** 2) / gray.size
    return Quality(
        sharpness=_sharpness(gray),
        brightness=brightness,
        contrast=variance**0.5,
        information=max(0.0, float(-(share * np.log2(share)).sum())),
        uniform=_uniform(np.asarray(colour)),
        aspect=None if size is None else size[0] / size[1],
    )


def issues(quality: Quality) -> str | None:
    """Names of what is wrong, as ``blurry, dark``; None for nothing."""
    found = [name for name, (_, test) in ISSUES.items() if test(quality)]
    return ", ".join(found) or None


def _sharpness(gray: NDArray[np.uint8]) -> float:
    """Variance of the four-neighbour Laplacian where all four are inside the picture."""
    if min(gray.shape) < 3:
        return 0.0
    g = gray.astype(np.int16)
    around = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:]
    return float(np.var(around - 4 * g[1:-1, 1:-1], dtype=np.float64))


def _uniform(colour: NDArray[np.uint8]) -> float:
    coarse = (colour // (256 // _BINS)).reshape(-1, 3).astype(np.int32)
    which = (coarse[:, 0] * _BINS + coarse[:, 1]) * _BINS + coarse[:, 2]
    return float(np.bincount(which).max()) / len(which)
