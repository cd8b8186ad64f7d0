"""Sheets of duplicates and leaks: a row a group, what stays at the left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from retrieval.errors import ImageError
from retrieval.images import decode

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.duplicates.found import Duplicates
    from retrieval.query.duplicates.leaks import Leaks
    from retrieval.types import ImageRecord

_SIDE, _GAP, _CAPTION = 160, 14, 52
_TOP, _APART = 10, 26
_ROWS, _COLUMNS, _LINES = 100, 8, 72
_INK, _FAINT, _PAPER, _CELL, _LINE = "#1b1f24", "#6b7280", "#ffffff", "#f3f4f6", "#d1d5db"


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture, or an empty place, with three lines below it."""

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
    return drawn_rows(rows, f"{len(found)} groups")


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
    return drawn_rows(rows, f"{len(found)} leaks")


def _thumbnails(collection: Collection, images: Sequence[ImageRecord]) -> dict[int, bytes]:
    return collection.store.thumbnails([image.image_id for image in images])


def _cell(small: dict[int, bytes], image: ImageRecord, title: str, below: str) -> Cell:
    return Cell(small.get(image.image_id), title, below, os.path.basename(image.uri))


def drawn_rows(rows: Sequence[Sequence[Cell]], said: str = "") -> Image.Image:
    """Draw rows of cells, short ones beside each other, as many as a sheet has room for.

    Args:
        rows: the cells.
        said: how many there are in all, as "130 groups", to be told where not all are drawn.

    Returns:
        RGB picture, at most 16,383 pixels high: what WebP and JPEG can hold.
    """
    lines = _lines(rows)[:_LINES]
    high, shown = _SIDE + _CAPTION + _GAP, sum(map(len, lines))
    size = (max(map(_width, lines), default=_width([[]])), max(1, len(lines)) * high + _TOP + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    if said and not said.startswith(f"{shown} "):
        draw.text(
            (_GAP, _GAP // 2), f"the first {shown} of {said}", _INK, ImageFont.load_default(13)
        )
    for number, line in enumerate(lines):
        top, left = _TOP + _GAP + number * high, _GAP
        if number:
            draw.line((_GAP, top - _GAP // 2, size[0] - _GAP, top - _GAP // 2), fill=_LINE)
        for row in line:
            for cell in row:
                _draw(sheet, draw, cell, left, top)
                left += _SIDE + _GAP
            left += _APART
    return sheet


def _lines(rows: Sequence[Sequence[Cell]]) -> list[list[Sequence[Cell]]]:
    """Rows in their order, those together that fit beside each other."""
    lines: list[list[Sequence[Cell]]] = []
    for row in rows:
        if lines and sum(map(len, lines[-1])) + len(row) <= _COLUMNS:
            lines[-1].append(row)
        else:
            lines.append([row])
    return lines


def _width(line: Sequence[Sequence[Cell]]) -> int:
    return max(1, sum(map(len, line))) * (_SIDE + _GAP) + (len(line) - 1) * _APART + _GAP


def _draw(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_CELL)
    if (small := _opened(cell.thumbnail)) is not None:
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


def _opened(thumbnail: bytes | None) -> Image.Image | None:
    """None where there is none, or a damaged one."""
    try:
        return None if thumbnail is None else decode(thumbnail).image
    except ImageError:
        return None


def _line_tops(top: int) -> Iterator[int]:
    return (top + _SIDE + 3 + 16 * line for line in range(3))
