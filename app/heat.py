"""Heat maps over pictures: where an image is like a query."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from app.output import printable

if TYPE_CHECKING:
    from retrieval.query.explain import Explanation, View

RAMP = (
    (27, 0, 81), (70, 1, 108), (119, 2, 118), (171, 8, 111), (213, 48, 89),
    (247, 89, 52), (255, 145, 51), (255, 194, 90), (255, 237, 134),
)  # fmt: skip
"""From violet over red to yellow, even steps of lightness in OKLab (Ottosson, 2020)."""

_SIDE, _GAP, _HEAD, _LEGEND = 480, 16, 56, 56
_INK, _FAINT, _PAPER = "#1b1f24", "#6b7280", "#ffffff"
_LEAST = 0.05
_COVER = 0.55  # share of the colours; the rest is the picture in gray
_NAMES = (
    ("upper left", "upper middle", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "lower middle", "lower right"),
)


def drawing(why: Explanation, title: str) -> Image.Image:
    """Two pictures side by side: what was asked, and the image with its heat.

    On the left is the query's picture with a heat of its own; the plain image if words were asked.

    Args:
        why: what to draw.
        title: heading, as the words that were asked.

    Returns:
        RGB picture.
    """
    if why.query_view is None or why.query_heat is None:
        left, legend = _scaled(why.view.picture), None
    else:
        left, legend = overlay(why.query_view, why.query_heat), why.query_heat
    panels = ((left, legend), (overlay(why.view, why.heat), why.heat))
    high = max(panel.height for panel, _ in panels)
    size = (2 * (_SIDE + _GAP) + _GAP, _HEAD + high + _LEGEND)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, ink, line in (
        (_GAP, _INK, title),
        (_SIDE + 2 * _GAP, _FAINT, f"{why.score:.3f}  {os.path.basename(why.image.uri)}"),
    ):
        text = printable(line).replace("\n", " ")
        draw.text((x, 18), text, fill=ink, font=ImageFont.load_default(22))
    for at, (panel, heat) in enumerate(panels):
        x = _GAP + at * (_SIDE + _GAP)
        sheet.paste(panel, (x + (_SIDE - panel.width) // 2, _HEAD + (high - panel.height) // 2))
        if heat is not None:
            _legend(sheet, draw, heat, x, _HEAD + high + 12)
    return sheet


def overlay(
    view: View, heat: NDArray[np.float32], span: tuple[float, float] | None = None
) -> Image.Image:
    """The picture with ``heat`` over the part that the encoder saw; the rest is darkened.

    The colours go from one end of ``span`` to the other; without one they span the values that
    occur, and at least 0.05 below the greatest.
    """
    picture = _scaled(view.picture)
    zoom = picture.width / view.picture.width, picture.height / view.picture.height
    left, top, right, bottom = (round(edge * zoom[at % 2]) for at, edge in enumerate(view.box))
    size = max(right - left, 1), max(bottom - top, 1)
    low, high = span or _span(heat)
    levels = Image.fromarray((heat - low) / np.float32(high - low))
    colours = _colours(np.asarray(levels.resize(size, Image.Resampling.BICUBIC)))
    gray = ImageOps.grayscale(picture.crop((left, top, left + size[0], top + size[1])))
    out = picture.point(lambda level: level * 0.4)
    out.paste(Image.blend(gray.convert("RGB"), colours, _COVER), (left, top))
    return out


def strongest(why: Explanation) -> list[tuple[str, float]]:
    """The nine parts of the image by the mean of their heat, best first.

    Returns:
        Names, as ``lower left``, and means; parts that the encoder did not see are left out.
    """
    left, top, right, bottom = why.view.box
    parts: dict[str, list[float]] = {}
    rows, columns = why.heat.shape
    for (row, column), value in np.ndenumerate(why.heat):
        x = (left + (column + 0.5) * (right - left) / columns) / why.view.picture.width
        y = (top + (row + 0.5) * (bottom - top) / rows) / why.view.picture.height
        if 0 <= x < 1 and 0 <= y < 1:
            parts.setdefault(_NAMES[int(3 * y)][int(3 * x)], []).append(float(value))
    means = ((name, sum(values) / len(values)) for name, values in parts.items())
    return sorted(means, key=lambda part: -part[1])


def _span(heat: NDArray[np.float32]) -> tuple[float, float]:
    """The values that the ends of the ramp stand for; differences of less than that are none."""
    high = float(heat.max())
    return min(float(heat.min()), high - _LEAST), high


def _colours(levels: NDArray[np.float32]) -> Image.Image:
    """Values in [0, 1] as colours of the ramp, between whose entries is interpolated."""
    steps = np.linspace(0, 1, len(RAMP))
    bands = [np.interp(levels, steps, band) for band in np.array(RAMP, dtype=float).T]
    return Image.fromarray(np.rint(np.stack(bands, axis=-1)).astype(np.uint8))


def _scaled(picture: Image.Image) -> Image.Image:
    """The picture with a longer side of 480 pixels."""
    zoom = _SIDE / max(picture.size)
    size = max(round(picture.width * zoom), 1), max(round(picture.height * zoom), 1)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _legend(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, heat: NDArray[np.float32], x: int, y: int
) -> None:
    """The ramp with the least and the greatest value that it stands for."""
    bar = _colours(np.tile(np.linspace(0, 1, _SIDE - 120, dtype=np.float32), (12, 1)))
    sheet.paste(bar, (x + 60, y + 4))
    font = ImageFont.load_default(14)
    low, high = _span(heat)
    draw.text((x + 52, y + 10), f"{low:z.2f}", fill=_FAINT, font=font, anchor="rm")
    draw.text((x + _SIDE - 52, y + 10), f"{high:z.2f}", fill=_FAINT, font=font, anchor="lm")
