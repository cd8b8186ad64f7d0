"""Decoding: formats, pixel modes, orientation, EXIF facts, and refusals with their reasons."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import IMAGE_EXTENSIONS, content_hash, decode, looks_like_image
from tests.hostile import OK, SKIP, exif_bytes, heic_bytes, make, pack, photo

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def decoded(image: Image.Image, format: str = "PNG", **options: object) -> np.ndarray:
    picture = decode(pack(image, format, **options))
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image).astype(int)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours at top left, top right, bottom left, bottom right."""
    right, bottom = image.width - 1, image.height - 1
    return [image.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))]


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 25),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("AVIF", {"quality": 95}, 25),
        ("GIF", {}, 40),
    ],
)
def test_every_format_gives_its_pixels(format, options, tolerance) -> None:
    data = pack(photo(), format, **options)
    picture = decode(data)
    assert (picture.format, picture.width, picture.height) == (format, 96, 64)
    assert picture.image.size == (96, 64)
    assert picture.image.mode == "RGB"
    assert looks_like_image(data[:64])
    difference = np.asarray(picture.image).astype(int) - np.asarray(photo())
    assert np.abs(difference).max() <= tolerance


def test_heic_is_read_with_its_extra() -> None:
    pytest.importorskip("pillow_heif")
    data = heic_bytes(photo())
    picture = decode(data)
    assert (picture.format, picture.image.size, picture.image.mode) == ("HEIF", (96, 64), "RGB")
    assert looks_like_image(data[:64])
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(photo())).mean() < 5


def test_heic_without_its_extra_names_the_fix(monkeypatch) -> None:
    data = heic_bytes(photo()) or b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install pillow-heif") as caught:
        decode(data)
    assert caught.value.kind == "unsupported"


def test_heif_library_is_not_loaded_for_other_formats() -> None:
    code = (
        "import sys; from retrieval.images import decode; "
        "decode(bytes.fromhex(sys.argv[1])); assert 'pillow_heif' not in sys.modules"
    )
    data = pack(photo(4, 4), "PNG").hex()
    subprocess.run([sys.executable, "-c", code, data], check=True)


# Where row 0 and column 0 of the stored picture are seen (EXIF 2.32, tag 274).
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}


def upright_corners(orientation: int) -> list[tuple[int, int, int]]:
    """Colours, as seen, of the corners of ``photo()`` stored with that orientation."""
    row, column = ORIENTATIONS[orientation]
    stored = {
        frozenset((row, column)): RED,
        frozenset((row, OPPOSITE[column])): GREEN,
        frozenset((OPPOSITE[row], column)): BLUE,
        frozenset((OPPOSITE[row], OPPOSITE[column])): YELLOW,
    }
    return [stored[frozenset((v, h))] for v in ("top", "bottom") for h in ("left", "right")]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "size", "scale"),
    [
        ("JPEG", (96, 64), 1),
        ("JPEG", (1536, 1024), 4),
        ("JPEG", (4096, 2048), 8),
        ("PNG", (96, 64), 1),
        ("WEBP", (96, 64), 1),
        ("TIFF", (96, 64), 1),
        ("AVIF", (96, 64), 1),
    ],
)
def test_every_orientation_is_seen_upright(format, size, scale, orientation) -> None:
    data = pack(photo(*size), format, exif=exif_bytes(orientation), quality=95)
    picture = decode(data, min_side=128)
    upright = size if orientation < 5 else size[::-1]
    assert (picture.width, picture.height) == upright
    assert picture.image.size == tuple(length // scale for length in upright)
    found = np.array(corners(picture.image))
    assert np.abs(found - np.array(upright_corners(orientation))).max() < 40
    assert not picture.image.info, "an orientation left behind would be applied twice"


def test_camera_facts_are_clean_and_without_place() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker\x07 of\ncameras  ", "M" * 1000
    camera = exif.get_ifd(0x8769)
    camera[0x9003] = "2021:03:04 05:06:07"
    camera[0x829A], camera[0x829D], camera[0x920A], camera[0x8827] = 0.004, 2.8, 50.0, 400
    exif.get_ifd(0x8825)[1] = "N"
    picture = decode(pack(photo(), "JPEG", exif=exif))
    assert picture.captured_at == datetime(2021, 3, 4, 5, 6, 7)
    assert picture.exif == {
        "camera_make": "Maker of cameras",
        "camera_model": "M" * 100,
        "iso": "400",
        "f_number": "2.8",
        "exposure_time": "1/250",
        "focal_length_mm": "50",
    }


@pytest.mark.parametrize(
    "when", ["0000:00:00 00:00:00", "    ", "yesterday", "2021:13:41 99:00:00"]
)
def test_a_clock_never_set_is_no_date(when) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = when
    assert decode(pack(photo(), "JPEG", exif=exif)).captured_at is None


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0" + b"\xff" * 50,
        exif_bytes(6)[:40],
        exif_bytes(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x0c\0"),
    ],
)
def test_a_broken_exif_block_is_no_error(format, block) -> None:
    picture = decode(pack(photo(), format, exif=block))
    assert picture.image.mode == "RGB"
    assert {picture.width, picture.height} == {96, 64}


def test_16_bit_gray_keeps_its_gradient() -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.rint(ramp / 257).astype(int)
    for format in ("PNG", "TIFF"):
        assert (decoded(Image.fromarray(ramp), format) == expected[..., None]).all()
    big_endian = Image.fromarray(ramp).convert("I").convert("I;16B")
    assert (decoded(big_endian, "TIFF") == expected[..., None]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.25, 0.5]], np.float32), [64, 128]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32), [0, 255, 0, 128]),
        (np.array([[-3e38, 0.0, 3e38]], np.float32), [0, 128, 255]),
        (np.array([[7000.0, 7000.0]], np.float32), [0, 0]),
        (np.array([[np.nan]], np.float32), [0]),
        (np.array([[0x7F800001, 0x3F800000]], np.uint32).view(np.float32), [0, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
    ],
)
def test_numbers_of_unknown_range_stay_visible(values, expected) -> None:
    assert decoded(Image.fromarray(values), "TIFF")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode) -> None:
    color = (200, 100, 0) if mode == "RGBA" else (80,)
    alpha = np.arange(256)
    pixels = np.array([[[*color, a] for a in alpha]], dtype=np.uint8)
    exact = (np.array(color) * alpha[:, None] + 255 * (255 - alpha[:, None])) / 255
    found = decoded(Image.fromarray(pixels))
    assert Image.fromarray(pixels).mode == mode
    assert np.abs(found[0] - exact).max() <= 0.5 + 1e-9


def test_palettes_keep_colour_and_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert decoded(image).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    half = decoded(image, transparency=bytes([0, 255, 128]))
    assert half.tolist() == [[[255, 255, 255], [0, 255, 0], [127, 127, 255]]]
    assert decoded(image, "GIF", transparency=1).tolist()[0][1] == [255, 255, 255]
    keyed = Image.new("RGB", (1, 1), (1, 2, 3))
    assert decoded(keyed, transparency=(1, 2, 3)).tolist() == [[[255, 255, 255]]]


def test_one_bit_and_gray() -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert decoded(bits)[0, :, 1].tolist() == [255, 0]
    assert decoded(Image.new("L", (2, 2), 77)).tolist() == [[[77] * 3] * 2] * 2


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("side", [64, 2048])
def test_cmyk_has_plausible_colours(format, side) -> None:
    stored = photo(side, side).convert("CMYK")
    picture = decode(pack(stored, format, quality=95), min_side=128)
    colors = np.array(corners(picture.image))
    assert np.abs(colors - np.array([RED, GREEN, BLUE, YELLOW])).max() < 60
    assert picture.image.mode == "RGB"
    assert picture.width == side


def test_animations_and_pages_give_the_first() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = pack(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode(data).image.getpixel((4, 4)) == RED


def test_size_is_refused_before_decoding_and_the_limit_is_the_callers() -> None:
    data = pack(photo(100, 50), "PNG")
    assert decode(data, max_pixels=5000).width == 100
    with pytest.raises(ImageError, match="100 × 50") as caught:
        decode(data, max_pixels=4999)
    assert caught.value.kind == "too-large"


def test_the_applications_pillow_settings_stay(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(pack(photo(), "PNG")).width == 96
    assert Image.MAX_IMAGE_PIXELS == 10


def test_odd_files_warn_nobody(monkeypatch) -> None:
    data = pack(photo(), "TIFF", tiffinfo={33550: (1.0, 2.0)})
    broken = data.replace(b"\x11\x01\x04\0", b"\x11\x01\x0c\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for candidate in (data, broken, pack(photo(), "JPEG", exif=exif_bytes(6)[:60])):
            try:
                decode(candidate)
            except ImageError as error:
                assert not isinstance(error.__cause__, Warning)


def test_hostile_folder_is_judged_file_by_file(tmp_path: Path) -> None:
    verdicts = make(tmp_path)
    found = {}
    for name, verdict in verdicts.items():
        if verdict == SKIP or (name == "unreadable.png" and os.geteuid() != 0):
            continue
        try:
            picture = decode((tmp_path / name).read_bytes(), min_side=224)
            found[name] = OK if picture.image.mode == "RGB" else picture.image.mode
        except ImageError as error:
            assert str(error)
            found[name] = error.kind
    assert len(found) > 40
    assert found == {name: verdicts[name] for name in found}


def test_threads_agree_with_one() -> None:
    files = [
        pack(photo(600 + i, 500), format, exif=exif_bytes(1 + i % 8))
        for i, format in enumerate(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"] * 8)
    ]

    def digest(data: bytes) -> str:
        return content_hash(decode(data, min_side=64).image.tobytes())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(digest, files)) == [digest(data) for data in files]


def test_content_hash_is_blake2b_128() -> None:
    assert content_hash(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    assert len(content_hash(b"")) == 32


def test_sniffing_takes_no_text_and_no_refused_format_for_a_picture() -> None:
    heads = (
        b"BM is not a bitmap",
        b"8BPS\0\1",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"\xff\x0a",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x18ftypisom",
        b"%PDF-1.7",
        b"<svg/>",
        b"",
    )
    assert not any(looks_like_image(head + b" " * 64) for head in heads)


def test_extensions_are_lower_case_with_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".heic"} <= IMAGE_EXTENSIONS
    assert all(e.startswith(".") and e == e.lower() for e in IMAGE_EXTENSIONS)


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((895, 2000), 224, (895, 2000)),  # half would leave less than twice 224
        ((896, 2000), 224, (448, 1000)),
        ((2000, 1790), 224, (1000, 895)),
        ((2000, 1791), 224, (2000, 1791)),  # half a row would shift the picture
        ((2000, 1792), 224, (500, 448)),
        ((3584, 3584), 224, (448, 448)),
        ((4000, 3000), 224, (1000, 750)),
        ((767, 767), 16, (767, 767)),  # a thumbnail needs 384 on the longer side
        ((770, 770), 16, (385, 385)),
        ((5000, 63), 16, (5000, 63)),
        ((4000, 3000), None, (4000, 3000)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_reduced_scale_keeps_twice_the_target(size, min_side, expected, mode) -> None:
    picture = decode(pack(photo(*size).convert(mode), "JPEG"), min_side=min_side)
    assert picture.image.size == expected
    assert (picture.width, picture.height) == size
    assert picture.image.mode == "RGB"
