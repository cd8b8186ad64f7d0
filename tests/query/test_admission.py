"""Admission: what is read, what is held, and what a picture that cannot be read costs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.errors import ImageError, QueryError
from retrieval.query.duplicates import admission
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures
from tests.planted import copies, originals


class Counted(ColourEncoder):
    """Notes how many pictures it is given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def encode_images(self, images):
        self.sizes.append(len(images))
        return super().encode_images(images)


@pytest.fixture
def colours(tmp_path):
    paths = write_pictures(tmp_path / "photos", 6)
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[ColourEncoder()])
    encoder = Counted()
    return paths, retrieval.open(tmp_path / "c", encoders=[encoder]), encoder


def test_a_picture_that_cannot_be_read_keeps_no_other_from_an_answer(colours, tmp_path):
    paths, collection, _ = colours
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    pictures = [tmp_path / "broken.jpg", paths[0], tmp_path / "none.jpg", b"", np.zeros(3)]
    found = collection.check([*pictures, Image.new("RGB", (9, 9))], threshold=0.5)
    assert [each.error is None for each in found] == [False, True, False, False, False, True]
    assert [each.found for each in found[:5]] == [False, True, False, False, False]
    assert "no such file" in found[2].error
    with pytest.raises(ImageError) as broken:
        retrieval.images.load(tmp_path / "broken.jpg")
    assert found[0].error == str(broken.value)


@pytest.mark.parametrize("wrong", ["photo.jpg", b"bytes", np.zeros((9, 9, 3), np.uint8), None])
def test_one_picture_is_no_list(colours, wrong, tmp_path):
    for each in (wrong, tmp_path / "photo.jpg", Image.new("RGB", (9, 9))):
        with pytest.raises(QueryError, match="list"):
            colours[1].check(each)


def test_few_pictures_are_held_and_known_bytes_are_not_decoded(colours, monkeypatch):
    paths, collection, encoder = colours
    decoded, real = [], admission.load

    def watched(source, **more):
        decoded.append(source)
        return real(source, **more)

    monkeypatch.setattr(admission, "load", watched)
    known = collection.check(paths)
    assert all(each.best.why == "same bytes" for each in known)
    collection.check([Image.new("RGB", (9, 9))] * 3, tiers=["exact"])
    assert not decoded and not encoder.sizes
    new = [Image.new("RGB", (40, 40), (9 * i, 90, 200 - 9 * i)) for i in range(20)]
    assert len(collection.check([*new, *paths], threshold=0.9)) == 26
    assert len(decoded) == sum(encoder.sizes) == 20 and max(encoder.sizes) <= admission._BATCH


def test_pictures_are_compared_with_each_collection(tmp_path):
    paths = originals(tmp_path / "photos")
    made = copies(paths, tmp_path / "more")
    for folder in ("photos", "more"):
        ingest(tmp_path / folder, tmp_path / folder[0], encoders=["pocket-visual"])
    ours, theirs = (retrieval.open(tmp_path / name) for name in "pm")
    with Image.open(paths["rocket"]) as picture:
        [found] = ours.check([picture], against=[theirs], threshold=0.3)
    assert [match.image.uri for match in found.matches] == [
        str(paths["rocket"]),
        str(made["rocket"]),
    ]
    assert [match.kind for match in found.matches] == ["copy", "edited"]
    assert found.best.score == 1.0, "identical vectors have a cosine of exactly 1"
    with Image.open(paths["rocket"]) as picture:
        [found] = ours.check([picture], threshold=1.0)
    assert found.found
