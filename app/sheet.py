"""Contact sheets: a picture of an answer, for people who would rather look than read."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from retrieval.types import Hit, Hits

if TYPE_CHECKING:
    from retrieval import Collection

_SIDE = 224
_GAP = 16
_CAPTION = 40
_INK, _FAINT, _PAPER, _CELL = "#1b1f24", "#6b7280", "#ffffff", "#f3f4f6"


def contact_sheet(
    collection: Collection, hits: Hits, title: str, *, columns: int = 5
) -> Image.Image:
    """Draw an answer as a grid of thumbnails with rank, score and name.

    Args:
        collection: where the thumbnails are; a missing one leaves an empty cell.
        hits: what to draw, in order.
        title: heading, as the words that were searched.
        columns: pictures a row.

    Returns:
        RGB picture.
    """
    thumbnails = collection.store.thumbnails([hit.image.image_id for hit in hits])
    rows = max(1, -(-len(hits) // columns))
    heading = 56 if title else _GAP
    width = columns * (_SIDE + _GAP) + _GAP
    height = heading + rows * (_SIDE + _CAPTION + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_GAP, 18), _drawable(title), fill=_INK, font=ImageFont.load_default(22))
    for place, hit in enumerate(hits):
        left = _GAP + (place % columns) * (_SIDE + _GAP)
        top = heading + (place // columns) * (_SIDE + _CAPTION + _GAP)
        _draw_cell(sheet, draw, hit, thumbnails.get(hit.image.image_id), left, top)
    return sheet


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Several sheets of one width below each other."""
    whole = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)), _PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    hit: Hit,
    thumbnail: bytes | None,
    left: int,
    top: int,
) -> None:
    draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_CELL)
    if thumbnail:
        with Image.open(io.BytesIO(thumbnail), formats=("WEBP",)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        x = left + (_SIDE - small.width) // 2
        sheet.paste(small, (x, top + (_SIDE - small.height) // 2))
    below = top + _SIDE + 4
    strong, plain = ImageFont.load_default(14), ImageFont.load_default(13)
    draw.text((left, below), f"{hit.rank}   {hit.score:.3f}", fill=_INK, font=strong)
    name = _drawable(os.path.basename(hit.image.uri))
    while name and draw.textlength(name, font=plain) > _SIDE:
        name = name[:-2].rstrip("…") + "…" if len(name) > 2 else ""
    draw.text((left, below + 17), name, fill=_FAINT, font=plain)


def _drawable(text: str) -> str:
    """Text on one line, without what no font draws."""
    return "".join(c if c.isprintable() else "�" for c in text)
