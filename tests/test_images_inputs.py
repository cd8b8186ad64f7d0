"""Query pictures from paths, bytes, Pillow pictures and arrays; thumbnails."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError, QueryError
from retrieval.images import load, thumbnail
from tests.hostile import exif_bytes, pack, photo


def same(image: Image.Image, expected: Image.Image) -> bool:
    return image.mode == "RGB" and (np.asarray(image) == np.asarray(expected)).all()


def test_paths_bytes_pictures_and_arrays_agree(tmp_path: Path) -> None:
    data = pack(photo(), "PNG")
    (tmp_path / "a.jpg").write_bytes(data)
    array = np.asarray(photo())
    lazy = Image.open(io.BytesIO(data))
    sources = (
        tmp_path / "a.jpg",
        str(tmp_path / "a.jpg"),
        data,
        bytearray(data),
        photo(),
        lazy,
        array,
        array[::-1][::-1],
        np.dstack([array, np.full((64, 96), 255, np.uint8)]),
    )
    assert all(same(load(source), photo()) for source in sources)


def test_a_path_that_is_not_utf_8(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.png")
    try:
        with open(path, "wb") as file:
            file.write(pack(photo(), "PNG"))
    except OSError:
        pytest.skip("this file system takes no such names")
    assert same(load(os.fsdecode(path)), photo())


def test_arrays_of_every_kind() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = Image.fromarray(np.repeat(gray[..., None], 3, axis=2))
    assert same(load(gray), expected)
    for dtype in (np.float16, np.float32, np.float64):
        assert same(load((gray / 255).astype(dtype)), expected)
    clear = np.zeros((2, 2, 4), np.float32)
    assert load(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((8, 8, 2), np.uint8), "expected an array"),
        (np.zeros(8, np.uint8), "expected an array"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((8, 8), bool), "bool"),
        (np.full((8, 8), 200.0), r"\[0, 1\]"),
        (np.full((8, 8), np.nan), r"\[0, 1\]"),
        (np.full((8, 8), -0.1, np.float32), r"\[0, 1\]"),
    ],
)
def test_arrays_that_mean_nothing_are_named(array, message) -> None:
    with pytest.raises(QueryError, match=message):
        load(array)


def test_the_callers_objects_are_not_changed() -> None:
    picture = photo()
    picture.info["mark"] = 1
    array = np.asarray(picture).copy()
    before = array.copy()
    for source in (picture, array):
        load(source).paste((0, 0, 0), (0, 0, 96, 64))
    assert picture.info == {"mark": 1}
    assert same(picture, photo())
    assert (array == before).all()


def test_pillow_pictures_are_turned_once() -> None:
    stored = photo()
    lazy = Image.open(io.BytesIO(pack(stored, "PNG", exif=exif_bytes(6))))
    upright = load(lazy)
    assert same(upright, stored.transpose(Image.Transpose.ROTATE_270))
    assert same(load(upright), upright)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path, "no such file"),
        ("a\0b", "."),
        (7, "int"),
        (None, "NoneType"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ):
        with pytest.raises(QueryError, match=message):
            load(source)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(QueryError, match="no such file"):
        load(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError):
        load(b"text")
    half = pack(photo(), "PNG")[:400]
    with pytest.raises(ImageError) as caught:
        load(Image.open(io.BytesIO(half)))
    assert caught.value.kind in {"truncated", "corrupt"}


@pytest.mark.parametrize("limit", [6143, 6144])
def test_the_pixel_limit_holds_for_every_source(limit) -> None:
    for source in (photo(), np.asarray(photo()), pack(photo(), "PNG")):
        if limit == 96 * 64:
            assert load(source, max_pixels=limit).width == 96
        else:
            with pytest.raises(ImageError) as caught:
                load(source, max_pixels=limit)
            assert caught.value.kind == "too-large"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 500), (256, 128)),
        ((500, 1000), (128, 256)),
        ((257, 257), (256, 256)),
        ((256, 100), (256, 100)),
        ((10, 20), (10, 20)),
        ((20_000, 1), (256, 1)),
        ((1, 20_000), (1, 256)),
        ((1, 1), (1, 1)),
    ],
)
def test_thumbnails_fit_and_are_never_enlarged(size, expected) -> None:
    source = photo(*size)
    packed = Image.open(io.BytesIO(thumbnail(source)))
    assert (packed.format, packed.mode, packed.size) == ("WEBP", "RGB", expected)
    assert source.size == size
    exact = photo(*size).resize(expected, Image.Resampling.LANCZOS)
    difference = np.asarray(packed).astype(int) - np.asarray(exact)
    assert np.abs(difference).mean() < 10  # WebP halves the colour resolution


def test_a_thumbnail_carries_no_metadata() -> None:
    source = photo()
    source.info.update(icc_profile=b"profile", exif=exif_bytes(6), xmp=b"<x/>")
    packed = thumbnail(source, side=32)
    assert not any(kind in packed for kind in (b"ICCP", b"EXIF", b"XMP "))
    assert max(Image.open(io.BytesIO(packed)).size) == 32
