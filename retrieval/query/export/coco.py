"""Images and their labels as a COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from retrieval.query.export.report import whole_file
from retrieval.query.export.selection import Selection
from retrieval.vectors.tiles import Tell

_COLUMNS = ("image_id", "uri", "width", "height", "captured_at", "label")


def write_coco(chosen: Selection, out: Path, tell: Tell | None) -> None:
    """COCO's ``images``, ``categories`` and ``annotations``; written row by row.

    Labels belong to whole images and COCO's annotations to boxes: an image with a label has one
    annotation, whose box is the whole image and whose ``iscrowd`` is 0. Categories are the labels
    in alphabetical order, from 1. ``file_name`` is the uri: an absolute path, as a rule.

    Args:
        chosen: what to write.
        out: the file.
        tell: called with the number of images that are written, and of all.

    Raises:
        ExportError: if it cannot be written.
    """
    labels = sorted({row["label"] for row in _rows(chosen, ("label",)) if row["label"] is not None})
    numbers = {label: number for number, label in enumerate(labels, 1)}
    categories = ({"id": n, "name": label, "supercategory": ""} for label, n in numbers.items())
    with whole_file(out) as path, path.open("w", encoding="utf-8") as file:
        file.write('{"info": ' + json.dumps(chosen.facts))
        _list(file, "images", map(_image, _rows(chosen, _COLUMNS, tell)))
        _list(file, "categories", categories)
        labelled = (row for row in _rows(chosen, _COLUMNS) if row["label"] is not None)
        annotations = (
            _annotation(number, row, numbers[row["label"]])
            for number, row in enumerate(labelled, 1)
        )
        _list(file, "annotations", annotations)
        file.write("}\n")


def _rows(
    chosen: Selection, columns: tuple[str, ...], tell: Tell | None = None
) -> Iterator[dict[str, Any]]:
    for block in chosen.blocks(columns, tell):
        yield from block.to_pylist()


def _image(row: dict[str, Any]) -> dict[str, Any]:
    captured = row["captured_at"]
    return {
        "id": row["image_id"],
        "file_name": row["uri"],
        "width": row["width"],
        "height": row["height"],
        "date_captured": "" if captured is None else captured.isoformat(" "),
    }


def _annotation(number: int, row: dict[str, Any], category: int) -> dict[str, Any]:
    width, height = row["width"] or 0, row["height"] or 0
    return {
        "id": number,
        "image_id": row["image_id"],
        "category_id": category,
        "bbox": [0, 0, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _list(file: TextIO, name: str, entries: Iterator[dict[str, Any]]) -> None:
    file.write(f',\n"{name}": [')
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False))
    file.write("]")
