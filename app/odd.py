"""Heatmaps of anomalies on disk: pictures to look at, arrays to compute with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.heat import overlay
from app.output import printable
from retrieval.errors import ExportError
from retrieval.images import load
from retrieval.query.explain import View
from retrieval.uris import path_of

if TYPE_CHECKING:
    from retrieval.query.anomaly.found import AnomalyResult

SHEET = "sheet.png"
_SIDE, _GAP, _CAPTION, _COLUMNS, _MOST = 240, 16, 44, 4, 100
_INK, _FAINT, _ALARM, _PAPER = "#1b1f24", "#6b7280", "#b91c1c", "#ffffff"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Files of one picture.

    Attributes:
        overlay: PNG: the picture with its heat.
        array: float32 ``[height, width]``, as ``numpy.load`` reads it.
    """

    overlay: Path
    array: Path


def write_heatmaps(
    folder: Path, results: Sequence[AnomalyResult], tell: Callable[[int, int], None]
) -> list[Drawn]:
    """Write an overlay and an array of each picture, and a sheet of the worst hundred.

    One scale of colours for all of them, so that they can be compared: from the least distance to
    the median of the pictures' greatest, beyond which one picture would leave the others dark.

    Args:
        folder: made if missing; files of the same names are written over.
        results: of pictures that have patches and came from files.
        tell: called with how many are done, and of how many.

    Raises:
        ExportError: if something cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        span = _span(results)
        drawn, cells = [], []
        worst = sorted(results, key=lambda one: -one.anomaly_score)[:_MOST]
        shown = {one.place for one in worst}
        for done, one in enumerate(results, 1):
            heat, path = one.heatmap, path_of(one.uri)
            assert heat is not None and path is not None
            picture = load(path)
            view = View(picture, (0.0, 0.0, float(picture.width), float(picture.height)))
            stem = folder / f"{one.place + 1:03d}-{Path(path).stem}"
            files = Drawn(stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.npy"))
            image = overlay(view, heat, span)
            image.save(files.overlay)
            np.save(files.array, heat, allow_pickle=False)
            drawn.append(files)
            if one.place in shown:
                cells.append((one, image))
            tell(done, len(results))
        cells.sort(key=lambda cell: -cell[0].anomaly_score)
        _sheet(cells).save(folder / SHEET)
    except OSError as error:
        raise ExportError(f"heatmaps cannot be written to {folder}: {error}") from error
    return drawn


def _span(results: Sequence[AnomalyResult]) -> tuple[float, float]:
    distances = [one.patches.distances for one in results if one.patches is not None]
    low = min((float(each.min()) for each in distances), default=0.0)
    high = float(np.median([each.max() for each in distances])) if distances else 1.0
    return low, max(high, low + 1e-6)


def _sheet(cells: Sequence[tuple[AnomalyResult, Image.Image]]) -> Image.Image:
    rows = max(1, -(-len(cells) // _COLUMNS))
    columns = max(1, min(_COLUMNS, len(cells)))
    size = columns * (_SIDE + _GAP) + _GAP, rows * (_SIDE + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    strong, plain = ImageFont.load_default(14), ImageFont.load_default(13)
    for number, (one, image) in enumerate(cells):
        left = _GAP + number % _COLUMNS * (_SIDE + _GAP)
        top = _GAP + number // _COLUMNS * (_SIDE + _CAPTION + _GAP)
        small = image.copy()
        small.thumbnail((_SIDE, _SIDE))
        sheet.paste(small, (left + (_SIDE - small.width) // 2, top + (_SIDE - small.height) // 2))
        ink = _ALARM if one.is_anomaly else _INK
        draw.text((left, top + _SIDE + 4), f"{one.anomaly_score:.4f}   {said(one)}", ink, strong)
        name = printable(os.path.basename(one.uri)).replace("\n", " ")
        while name and draw.textlength(name, font=plain) > _SIDE:
            name = name[:-2].rstrip("…") + "…" if len(name) > 2 else ""
        draw.text((left, top + _SIDE + 22), name, _FAINT, plain)
    return sheet


def said(one: AnomalyResult) -> str:
    """The verdict in a word; empty without a threshold."""
    if one.is_anomaly is None:
        return ""
    return "odd" if one.is_anomaly else "normal"
