"""The look at some pictures before the work begins."""

from __future__ import annotations

import numpy as np
from PIL import Image

from indexers.sample import sample_pictures
from indexers.sources import FolderSource


def test_a_sample_is_readable_small_and_the_same_every_time(tmp_path):
    for number in range(6):
        Image.new("RGB", (40, 30), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    first = sample_pictures([FolderSource(tmp_path)])
    again = sample_pictures([FolderSource(tmp_path)])
    assert len(first) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(sample_pictures([FolderSource(tmp_path)], 4)) == 4
    assert sample_pictures([]) == []


def test_large_photos_of_a_sample_are_shrunk(tmp_path):
    Image.new("RGB", (3000, 2000), "teal").save(tmp_path / "photo.jpg")
    Image.new("RGB", (700, 500), "teal").save(tmp_path / "small.png")
    sizes = {picture.size for picture in sample_pictures([FolderSource(tmp_path)])}
    assert sizes == {(768, 512), (700, 500)}
