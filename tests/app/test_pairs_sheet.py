"""Sheets fit into a picture file, say what they leave out, and survive damaged thumbnails."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from app import same
from app.pairs_sheet import Cell, drawn_rows
from retrieval.errors import QueryError
from retrieval.images.thumbnails import thumbnail

CAT = thumbnail(Image.fromarray(data.chelsea()))


def cell(small: bytes | None = None) -> Cell:
    return Cell(small, "copy   0.987", "half the size", "cat.jpg")


@pytest.mark.parametrize("ending", ["webp", "jpg", "png"])
def test_a_sheet_of_many_large_groups_can_be_written(tmp_path, ending):
    sheet = drawn_rows([[cell()] * 8] * 100, "1000 groups")
    sheet.save(tmp_path / f"s.{ending}")
    with Image.open(tmp_path / f"s.{ending}") as read:
        assert read.size == sheet.size and read.height <= 16_383


def test_small_groups_stand_beside_each_other():
    pairs, one = drawn_rows([[cell()] * 2] * 40), drawn_rows([[cell()] * 2])
    assert pairs.width > 3.5 * one.width and pairs.height < 10.5 * one.height
    assert drawn_rows([]).height < one.height + 1
    wide = drawn_rows([[cell()] * 2, [cell()] * 12, [cell()]])
    assert wide.width > pairs.width and wide.height > 2.5 * one.height


def test_a_sheet_says_where_it_does_not_show_all():
    rows = [[cell()] * 2] * 9

    def top(said: str) -> Image.Image:
        return drawn_rows(rows, said).crop((0, 0, 300, 23))

    assert top("9 groups") == top("") != top("90 groups")


def test_a_damaged_thumbnail_is_an_empty_place():
    empty = np.asarray(drawn_rows([[cell(CAT), cell(None)]]))
    for damaged in (b"", b"no picture", CAT[: len(CAT) // 2]):
        np.testing.assert_array_equal(np.asarray(drawn_rows([[cell(CAT), cell(damaged)]])), empty)
    assert (np.asarray(drawn_rows([[cell(CAT), cell(CAT)]])) != empty).any()


def test_a_sheet_without_a_folder_is_refused(tmp_path):
    same.check_sheet(None)
    same.check_sheet("sheet.png")
    same.check_sheet(str(tmp_path / "sheet.webp"))
    with pytest.raises(QueryError, match="no folder"):
        same.check_sheet(str(tmp_path / "missing" / "sheet.png"))
