"""Whatever the bytes: an RGB picture or an ImageError, and nothing else."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import decode, thumbnail
from tests.hostile import exif_bytes, heic_bytes, pack, photo

KINDS = {"empty", "not-an-image", "unsupported", "too-large", "truncated", "corrupt"}
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@cache
def valid_files() -> dict[str, bytes]:
    image = photo(48, 32)
    gray16 = Image.fromarray(np.arange(48 * 32, dtype=np.uint16).reshape(32, 48))
    files = {
        "jpeg": pack(image, "JPEG", exif=exif_bytes(6)),
        "jpeg-progressive": pack(image, "JPEG", progressive=True),
        "jpeg-cmyk": pack(image.convert("CMYK"), "JPEG"),
        "png": pack(image, "PNG", exif=exif_bytes(8)),
        "png-palette": pack(image.quantize(8), "PNG", transparency=bytes(8)),
        "png-16": pack(gray16, "PNG"),
        "png-animated": pack(image, "PNG", save_all=True, append_images=[gray16.convert("RGB")]),
        "webp": pack(image, "WEBP", exif=exif_bytes(3)),
        "webp-lossless": pack(image.convert("RGBA"), "WEBP", lossless=True),
        "gif": pack(image, "GIF", save_all=True, append_images=[image.transpose(0)]),
        "bmp": pack(image, "BMP"),
        "bmp-palette": pack(image.quantize(8), "BMP"),
        "tiff": pack(image, "TIFF", exif=exif_bytes(5)),
        "tiff-lzw": pack(image, "TIFF", compression="tiff_lzw"),
        "tiff-float": pack(gray16.convert("F"), "TIFF"),
        "tiff-pages": pack(image, "TIFF", save_all=True, append_images=[image]),
        "avif": pack(image, "AVIF"),
    }
    if (heic := heic_bytes(image)) is not None:
        files["heic"] = heic
    return files


def check(data: bytes) -> None:
    try:
        picture = decode(data, min_side=8, max_pixels=1_000_000)
    except ImageError as error:
        assert error.kind in KINDS
        assert str(error)
        return
    assert picture.image.mode == "RGB"
    assert picture.width * picture.height <= 1_000_000
    assert np.asarray(picture.image).dtype == np.uint8
    assert thumbnail(picture.image)


@FUZZ
@given(st.binary(max_size=400))
@example(b"")
def test_any_bytes(data) -> None:
    check(data)


@FUZZ
@given(st.sampled_from(sorted(valid_files())), st.binary(max_size=200))
def test_any_bytes_after_a_true_signature(name, tail) -> None:
    check(valid_files()[name][:32] + tail)


@FUZZ
@given(st.sampled_from(sorted(valid_files())), st.floats(0, 1))
def test_any_truncation(name, share) -> None:
    data = valid_files()[name]
    check(data[: int(share * len(data))])


@settings(FUZZ, max_examples=600)
@given(
    st.sampled_from(sorted(valid_files())),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_any_damage(name, damage) -> None:
    data = bytearray(valid_files()[name])
    for where, value in damage:
        # Headers are short and break most: half of the damage goes there.
        reach = 160 if value % 2 and len(data) > 160 else len(data)
        data[int(where * reach)] = value
    check(bytes(data))


def test_every_valid_file_decodes_and_every_half_is_refused() -> None:
    for name, data in valid_files().items():
        assert decode(data).image.size in {(48, 32), (32, 48)}, name
        try:
            decode(data[: len(data) // 2])
        except ImageError as error:
            assert error.kind == "truncated", f"{name}: {error}"
        else:
            # The second half of these holds later frames and pages, which are never read.
            assert name in {"gif", "png-animated", "tiff-pages"}, name
