"""Writes a folder of files that have broken image software before.

``from tests.hostile import make``; :func:`make` says of each file what must become of it.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

OK = "ok"
SKIP = "skip"


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth colourful RGB picture whose four corners differ: red, green, blue, yellow."""
    corners = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def pack(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of ``image`` as a file of that format."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    width: int, height: int, idat: bytes, *extra: bytes, depth: int = 8, color: int = 0
) -> bytes:
    """A PNG file with a header of one's own choice and ``extra`` chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *extra,
            chunk(b"IDAT", idat),
            chunk(b"IEND", b""),
        )
    )


def zeros(count: int) -> bytes:
    """``count`` zero bytes, deflated a megabyte at a time."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & 0xFFFFF)), packer.flush()])


def exif_bytes(orientation: int) -> bytes:
    """An EXIF block that holds an orientation and a camera."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker\0\x07 of\ncameras"
    exif[0x0110] = "Model 1"
    exif.get_ifd(0x8769)[0x9003] = "2021:03:04 05:06:07"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def make(folder: Path) -> dict[str, str]:
    """Write the files.

    Returns:
        What must become of each file, by name relative to ``folder``: ``ok``, the kind of the
        ``ImageError`` that refuses it, or ``skip`` for what is no candidate at all. A user who
        is not root cannot read ``unreadable.png``: it is ``ok`` for root alone.
    """
    files = {**_bombs(), **_broken(), **_impostors(), **_odd_pixels(), **_odd_containers()}
    expected = {}
    for name, (content, verdict) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[name] = verdict
    (folder / "unreadable.png").chmod(0o000)
    return expected | _odd_names(folder) | _odd_nodes(folder)


def _bombs() -> dict[str, tuple[bytes, str]]:
    text = zlib.compress(bytes(80_000_000), 9)
    profile = b"icc\0\0" + zlib.compress(bytes(30_000_000), 9)
    tiny = zlib.compress(b"\0\x80")
    return {
        "bomb-20k.png": (png(20_000, 20_000, zeros(20_000 * 2_501), depth=1), "too-large"),
        "bomb-100k.png": (png(100_000, 100_000, tiny), "too-large"),
        "bomb-text.png": (png(1, 1, tiny, chunk(b"zTXt", b"Comment\0\0" + text)), "too-large"),
        "bomb-profile.png": (png(1, 1, tiny, chunk(b"iCCP", profile)), "too-large"),
        "bomb.bmp": (_bmp_header(30_000, 30_000), "too-large"),
        "bomb.gif": (
            b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0\0\0"
            b",\0\0\0\0" + struct.pack("<HH", 60_000, 60_000) + b"\0\2\2L\1\0;",
            "too-large",
        ),
        "bomb.webp": (_webp_canvas(16_000, 16_000), "too-large"),
    }


def _bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + info + bytes(64)


def _webp_canvas(width: int, height: int) -> bytes:
    """An animated WebP whose canvas is far larger than its only frame."""
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    data = bytearray(pack(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def _broken() -> dict[str, tuple[bytes, str]]:
    def half(format: str) -> bytes:
        data = pack(photo(), format)
        return data[: len(data) // 2]

    jpeg = bytearray(pack(photo(), "JPEG"))
    jpeg[len(jpeg) // 2 : len(jpeg) // 2 + 16] = b"\x55" * 16
    whole = pack(photo(), "PNG")
    at = whole.index(b"IDAT") + 12
    return {
        "empty.jpg": (b"", "empty"),
        "cut.jpg": (half("JPEG"), "truncated"),
        "cut.png": (half("PNG"), "truncated"),
        "cut.webp": (half("WEBP"), "truncated"),
        "cut.gif": (half("GIF"), "truncated"),
        "header-only.jpg": (pack(photo(), "JPEG")[:20], "truncated"),
        "damaged.jpg": (bytes(jpeg), OK),  # libjpeg goes on after a bad block, like any viewer
        "damaged.png": (whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :], "corrupt"),
        "no-exif.jpg": (pack(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f junk"), OK),
    }


def _impostors() -> dict[str, tuple[bytes, str]]:
    return {
        "png-inside.jpg": (pack(photo(), "PNG"), OK),
        "text-inside.jpg": (b"It was a dark and stormy night.\n", "not-an-image"),
        "svg-inside.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
        "html-inside.webp": (b"<!doctype html><title>404</title>", "not-an-image"),
        "photoshop-inside.tif": (b"8BPS\0\1" + bytes(40), "unsupported"),
        "postscript-inside.png": (b"%!PS-Adobe-3.0 EPSF-3.0\nquit\n", "unsupported"),
        "jpeg-without-extension": (pack(photo(), "JPEG"), OK),
        "notes.txt": (b"BM is how this text begins, and a bitmap too.\n", SKIP),
    }


def _odd_pixels() -> dict[str, tuple[bytes, str]]:
    rgb = photo()
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    gray16 = np.linspace(0, 65535, 96 * 64).astype(np.uint16).reshape(64, 96)
    floats = Image.fromarray(np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96))
    pictures = {
        "1x1.png": pack(photo(1, 1), "PNG"),
        "20000x1.png": pack(photo(20_000, 1), "PNG"),
        "1x20000.png": pack(photo(1, 20_000), "PNG"),
        "cmyk.jpg": pack(rgb.convert("CMYK"), "JPEG"),
        "cmyk.tif": pack(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "gray16.png": pack(Image.fromarray(gray16), "PNG"),
        "float.tif": pack(floats, "TIFF"),
        "1bit.png": pack(rgb.convert("1"), "PNG"),
        "palette.png": pack(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        "rgba.png": pack(rgba, "PNG"),
        "la.png": pack(rgba.convert("LA"), "PNG"),
        "unreadable.png": pack(rgb, "PNG"),
    }
    return {name: (content, OK) for name, content in pictures.items()}


def _odd_containers() -> dict[str, tuple[bytes, str]]:
    frames = [photo().transpose(turn) for turn in (0, 1, 3)]
    several = {"save_all": True, "append_images": frames[1:]}
    pictures = {
        "animated.gif": pack(frames[0], "GIF", **several),
        "animated.webp": pack(frames[0], "WEBP", **several),
        "animated.png": pack(frames[0], "PNG", **several),
        "pages.tif": pack(frames[0], "TIFF", **several),
        "progressive.jpg": pack(photo(), "JPEG", progressive=True),
        "plain.bmp": pack(photo(), "BMP"),
        "/".join(["deep"] * 40) + "/photo.jpg": pack(photo(), "JPEG"),
    }
    for orientation in range(1, 9):
        name = f"orientation-{orientation}.jpg"
        pictures[name] = pack(photo(), "JPEG", exif=exif_bytes(orientation), quality=95)
    from PIL import features

    if features.check("avif"):
        pictures["photo.avif"] = pack(photo(), "AVIF")
    if (heic := heic_bytes(photo())) is not None:
        pictures["photo.heic"] = heic
    return {name: (content, OK) for name, content in pictures.items()}


def heic_bytes(image: Image.Image) -> bytes | None:
    """The bytes of ``image`` as HEIC; None where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return None
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file)
    return file.getvalue()


def _odd_names(folder: Path) -> dict[str, str]:
    expected = {}
    content = pack(photo(), "JPEG")
    names = [
        "a 'quoted' \"name\".jpg",
        "two\nlines.jpg",
        "\N{CAMERA} é.jpg",
        "-k 5.jpg",
        "%20;#.jpg",
    ]
    for name in [*names, os.fsdecode(b"not-utf-8-\xff\xfe.jpg")]:
        try:
            (folder / name).write_bytes(content)
        except OSError:  # a file system that refuses such names cannot hold this trap
            continue
        expected[name] = OK
    return expected


def _odd_nodes(folder: Path) -> dict[str, str]:
    """Links are not followed, so that a loop ends and a photo is not counted twice."""
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "link.jpg").symlink_to(folder / "cmyk.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    return dict.fromkeys(("loop", "link.jpg", "dangling.jpg", "pipe.jpg", "folder.jpg"), SKIP)
