"""Sheets of labels in doubt: a row an image or a pair, with what speaks against them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from app.pairs_sheet import Cell, drawn_rows
from retrieval.uris import path_of

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.label_quality.found import LabelIssue
    from retrieval.query.zero_shot.found import ZeroShotResult

_ROWS = 100


def issues_sheet(collection: Collection, issues: Sequence[LabelIssue]) -> Image.Image:
    """Draw the first issues: the image with given and suggested label, then the nearest images.

    Args:
        collection: where the thumbnails are.
        issues: what to draw, in order.

    Returns:
        RGB picture.
    """
    rows = []
    for issue in issues[:_ROWS]:
        ids = [issue.image_id, *(near.image_id for near in issue.neighbors)]
        small = collection.store.thumbnails(ids)
        doubt = f"perhaps {issue.suggested}   {issue.suspicion:.3f}"
        name = os.path.basename(issue.uri)
        row = [Cell(small.get(issue.image_id), f"given {issue.given}", doubt, name)]
        for near in issue.neighbors:
            name = os.path.basename(near.uri)
            row.append(Cell(small.get(near.image_id), str(near.label), f"{near.score:.3f}", name))
        rows.append(row)
    return drawn_rows(rows, f"{len(issues)} labels")


def disagreements_sheet(collection: Collection, found: ZeroShotResult) -> Image.Image:
    """Draw the pairs about which words and eyes disagree, both kinds in turn.

    Args:
        collection: where the thumbnails are.
        found: the pairs.

    Returns:
        RGB picture.
    """
    kinds = [
        [p for p in found.disagreements if p.kind == k] for k in ("looks alike", "named alike")
    ]
    turns = [p for pair in zip_longest(*kinds) for p in pair if p is not None]
    rows = []
    for pair in turns[:_ROWS]:
        small = collection.store.thumbnails([pair.a.image_id, pair.b.image_id])
        rows.append(
            [
                Cell(
                    small.get(side.image_id),
                    f"{side.label}   {side.confidence:.2f}",
                    f"{pair.kind}   {pair.score:.3f}",
                    os.path.basename(side.uri),
                )
                for side in (pair.a, pair.b)
            ]
        )
    return drawn_rows(rows, f"{len(turns)} pairs")


def named_sheet(collection: Collection, found: ZeroShotResult) -> Image.Image:
    """Draw new pictures with their labels, each beside its nearest images.

    Args:
        collection: where the thumbnails are.
        found: what the pictures were named; they are files that can be read.

    Returns:
        RGB picture.
    """
    rows = []
    for each in found[:_ROWS]:
        small = collection.store.thumbnails([near.image_id for near in each.neighbors])
        path = path_of(each.uri or "")
        own = Path(path).read_bytes() if path is not None else None
        fits = "none fits" if each.abstained else ", ".join(each.labels)
        title = f"{each.label}   {each.confidence:.2f}"
        row = [Cell(own, title, fits, os.path.basename(each.uri or ""))]
        for near in each.neighbors:
            name = os.path.basename(near.uri)
            row.append(Cell(small.get(near.image_id), near.label, f"{near.score:.3f}", name))
        rows.append(row)
    return drawn_rows(rows, f"{len(found)} pictures")
