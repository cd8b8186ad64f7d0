"""Sheets of duplicates and leaks: a row a group, what stays at the left."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.duplicates.found import Duplicates
    from retrieval.query.duplicates.leaks import Leaks
    from retrieval.types import ImageRecord

_SIDE, _GAP, _CAPTION = 160, 14, 52
_ROWS, _COLUMNS = 100, 8
_INK, _FAINT, _PAPER, _CELL, _LINE = "#1b1f24", "#6b7280", "#ffffff", "#f3f4f6", "#d1d5db"


@dataclass(frozen=True, slots=True)
class _Cell:
    thumbnail: bytes | None
    title: str
    below: str
    name: str


def groups_sheet(collection: Collection, found: Duplicates) -> Image.Image:
    """Draw the first groups: what stays, then its members with score, kind and why.

    Args:
        collection: where the thumbnails are.
        found: the groups; of each the first members that fit.

    Returns:
        RGB picture.
    """
    rows = []
    for group in islice(found, _ROWS):
        members = group.members[: _COLUMNS - 1]
        small = _thumbnails(collection, [group.keep, *(each.image for each in members)])
        size = f"{group.keep.width} x {group.keep.height}"
        row = [_cell(small, group.keep, f"keep   {size}", "")]
        more = len(group.members) - len(members)
        for at, each in enumerate(members, 1):
            beside = f"   and {more} more" if more and at == len(members) else ""
            title = f"{each.kind}   {each.score:.3f}{beside}"
            row.append(_cell(small, each.image, title, each.why))
        rows.append(row)
    return _drawn(rows)


def leaks_sheet(left: Collection, right: Collection, found: Leaks) -> Image.Image:
    """Draw the first leaks, the two sides beside each other.

    Args:
        left: where the first of each pair is.
        right: where the second is.
        found: the leaks.

    Returns:
        RGB picture.
    """
    rows = []
    for leak in islice(found, _ROWS):
        ours, theirs = _thumbnails(left, [leak.a]), _thumbnails(right, [leak.b])
        sides = [os.path.basename(side) for side in leak.sides]
        rows.append(
            [
                _cell(ours, leak.a, f"{leak.kind}   {leak.score:.3f}", sides[0]),
                _cell(theirs, leak.b, leak.why, sides[1]),
            ]
        )
    return _drawn(rows)


def _thumbnails(collection: Collection, images: Sequence[ImageRecord]) -> dict[int, bytes]:
    return collection.store.thumbnails([image.image_id for image in images])


def _cell(small: dict[int, bytes], image: ImageRecord, title: str, below: str) -> _Cell:
    return _Cell(small.get(image.image_id), title, below, os.path.basename(image.uri))


def _drawn(rows: Sequence[Sequence[_Cell]]) -> Image.Image:
    columns = max((len(row) for row in rows), default=1)
    high = _SIDE + _CAPTION + _GAP
    size = (columns * (_SIDE + _GAP) + _GAP, max(1, len(rows)) * high + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _GAP + number * high
        if number:
            draw.line((_GAP, top - _GAP // 2, size[0] - _GAP, top - _GAP // 2), fill=_LINE)
        for place, cell in enumerate(row):
            _draw(sheet, draw, cell, _GAP + place * (_SIDE + _GAP), top)
    return sheet


def _draw(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: _Cell, left: int, top: int) -> None:
    draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_CELL)
    if cell.thumbnail:
        with Image.open(io.BytesIO(cell.thumbnail), formats=("WEBP",)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        at = left + (_SIDE - small.width) // 2, top + (_SIDE - small.height) // 2
        sheet.paste(small, at)
    strong, plain = ImageFont.load_default(13), ImageFont.load_default(12)
    lines = ((cell.title, strong, _INK), (cell.below, plain, _FAINT), (cell.name, plain, _FAINT))
    for (text, font, colour), y in zip(lines, _line_tops(top), strict=True):
        shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
        while shown and draw.textlength(shown, font=font) > _SIDE:
            shown = shown[:-2].rstrip("…") + "…" if len(shown) > 2 else ""
        draw.text((left, y), shown, fill=colour, font=font)


def _line_tops(top: int) -> Iterator[int]:
    return (top + _SIDE + 3 + 16 * line for line in range(3))
