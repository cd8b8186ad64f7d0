"""Sheets of labels in doubt: a row an image or a pair, with what speaks against them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from app.pairs_sheet import Cell, drawn_rows

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.label_quality.found import LabelIssue

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
    return drawn_rows(rows)
