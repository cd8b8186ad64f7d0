"""A collection's map as one large picture: every image at its place."""

from __future__ import annotations

import colorsys
import io
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.curate.calls import Map

_CANVAS, _MARGIN = 4096, 48
_SMALLEST, _LARGEST = 24, 160
_ROOM = 3  # cells an image has, on average, so that the map keeps its form
_PAPER, _INK, _PLAIN = "#ffffff", "#1b1f24", "#9ca3af"
_LABELS = 24  # that get a colour of their own, the most frequent first
_BLOCK = 512
Cells = NDArray[np.int64]


def map_picture(collection: Collection, drawn: Map) -> tuple[Image.Image, int]:
    """Draw thumbnails at their places on a grid, framed in the colour of their label.

    No picture covers another: one whose cell is taken goes to the nearest free one. Where there are
    more images than the canvas has cells, some are chosen evenly by their ids.

    Returns:
        RGB picture, and how many images are on it.
    """
    side = int(np.clip(_CANVAS / max(1.0, (_ROOM * len(drawn.ids)) ** 0.5), _SMALLEST, _LARGEST))
    across = _CANVAS // side
    order = np.argsort(drawn.ids)
    most = across * across // _ROOM
    if len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).astype(np.int64)]
    ids, cells = drawn.ids[order], snapped(drawn.places[order], across)
    cells -= cells.min(axis=0, initial=across)  # no empty rim
    labels = [record.label for record in collection.store.records(ids)]
    colours = _colours(labels)
    legend = _legend_height(colours)
    _, down = cells.max(axis=0, initial=0).tolist()
    height = (down + 1) * side + 2 * _MARGIN
    canvas = Image.new("RGB", (_CANVAS + 2 * _MARGIN, height + legend), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for start in range(0, len(ids), _BLOCK):
        some = ids[start : start + _BLOCK]
        packed = collection.store.thumbnails(some)
        for at, image_id in enumerate(some.tolist(), start):
            left, top = (_MARGIN + cells[at] * side).tolist()
            frame = colours.get(labels[at] or "", _PLAIN)
            draw.rectangle((left, top, left + side - 2, top + side - 2), fill=frame)
            if image_id in packed:
                edge = max(1, side // 20) if colours else 0
                small = _square(packed[image_id], side - 1 - 2 * edge)
                canvas.paste(small, (left + edge, top + edge))
    _draw_legend(draw, colours, height)
    return canvas, len(ids)


def snapped(places: NDArray[np.float64], across: int) -> Cells:
    """int64 ``[n, 2]``: a cell of its own for each place, column and row from the top left.

    Args:
        places: ``[n, 2]`` in [-1, 1], y up; n at most ``across²``.
        across: cells in a row, and rows.
    """
    exact = (places * (1.0, -1.0) + 1.0) / 2 * (across - 1)
    wanted = np.rint(exact).astype(np.int64)
    taken = np.zeros((across, across), dtype=bool)
    cells = np.empty_like(wanted)
    for at, ((x, y), place) in enumerate(zip(wanted.tolist(), exact, strict=True)):
        cells[at] = (x, y) if not taken[x, y] else _nearest_free(taken, (x, y), place)
        taken[tuple(cells[at])] = True
    return cells


def _nearest_free(
    taken: NDArray[np.bool_], cell: tuple[int, int], place: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The free cell nearest to a place, looked for in growing squares around its cell."""
    reach = 1
    while True:
        low = np.maximum(np.array(cell) - reach, 0)
        high = np.minimum(np.array(cell) + reach + 1, taken.shape[0])
        free = np.argwhere(~taken[low[0] : high[0], low[1] : high[1]]) + low
        # What is farther than the square reaches may be nearer outside of its corners.
        if len(free):
            distances = ((free - place) ** 2).sum(axis=1)
            best = int(np.argmin(distances))
            if distances[best] <= (reach + 0.5) ** 2 or reach > taken.shape[0]:
                found: NDArray[np.int64] = free[best]
                return found
        reach *= 2


def _square(packed: bytes, side: int) -> Image.Image:
    """The middle of a thumbnail."""
    with Image.open(io.BytesIO(packed), formats=("WEBP",)) as picture:
        colour = picture.convert("RGB")
    short = min(colour.size)
    left, top = (colour.width - short) // 2, (colour.height - short) // 2
    whole = (left, top, left + short, top + short)
    return colour.resize((side, side), Image.Resampling.BILINEAR, box=whole)


def _colours(labels: list[str | None]) -> dict[str, str]:
    """Colours of the most frequent labels; none where there are no labels."""
    counts = Counter(label for label in labels if label)
    ordered = sorted(counts, key=lambda label: (-counts[label], label))[:_LABELS]
    found = {}
    for number, label in enumerate(ordered):
        hue, light = number / max(1, len(ordered)), (0.45, 0.6)[number % 2]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.75)
        found[label] = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return found


def _legend_height(colours: dict[str, str]) -> int:
    return 0 if not colours else 80 * -(-len(colours) // 8) + _MARGIN


def _draw_legend(draw: ImageDraw.ImageDraw, colours: dict[str, str], top: int) -> None:
    font = ImageFont.load_default(40)
    for number, (label, colour) in enumerate(colours.items()):
        left = _MARGIN + number % 8 * (_CANVAS // 8)
        at = top + number // 8 * 80
        draw.rectangle((left, at, left + 44, at + 44), fill=colour)
        told = "".join(c if c.isprintable() else "�" for c in label)
        draw.text((left + 60, at), told[:20], fill=_INK, font=font)
