"""Which format bytes are in, told from the bytes alone."""

from __future__ import annotations

from typing import Literal

IMAGE_EXTENSIONS: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp"),
        *(".tif", ".tiff", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    }
)
"""File name endings, lower case with dot, that promise a picture we read."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
)
_TIFF_TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
}
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})


def sniff(head: bytes) -> str | None:
    """Name the format of a file from its first bytes (64 are enough).

    Returns:
        ``JPEG``, ``PNG``, ``GIF``, ``TIFF``, ``WEBP``, ``BMP``, ``AVIF`` or ``HEIF``; None for
        anything else.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone would make pictures of many texts.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _sniff_brands(head)
    return None


def _sniff_brands(head: bytes) -> str | None:
    """Tell AVIF from HEIC in an ISO base media file (ISO/IEC 14496-12, 23008-12)."""
    major = head[8:12]
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {major, *(head[at : at + 4] for at in range(16, end, 4))}
    if major in _AVIF_BRANDS or (major in _ANY_HEIF_BRANDS and brands & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEVC_BRANDS or major in _ANY_HEIF_BRANDS:
        return "HEIF"
    return None


def refused_format(head: bytes) -> str | None:
    """Name a picture format that we know and do not read, for a better message."""
    return next((name for signature, name in _REFUSED if head.startswith(signature)), None)


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (64 bytes or more) is in a format we may read."""
    return sniff(head) is not None


def is_cut_short(data: bytes, name: str) -> bool:
    """Whether the end that the format ``name`` demands is missing; True is certain, False is not.

    Only asked of files that failed to decode, to tell a broken download from a broken picture.
    """
    if name == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if name == "PNG":
        return b"IEND" not in data[-4096:]
    if name == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if name == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if name == "TIFF":
        return _directory_overruns(data)
    return _boxes_overrun(data)


def _boxes_overrun(data: bytes) -> bool:
    """Whether the top-level boxes of an ISO base media file claim more bytes than there are."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:  # this box reaches to the end, wherever that is
            return False
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return False
        at += size
    return at != len(data)


def _directory_overruns(data: bytes) -> bool:
    """Whether the first directory of a TIFF, or a value it points to, lies beyond the end."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    if number(2, 2) == 43:  # BigTIFF
        return number(8, 8) >= len(data)
    first = number(4, 4)
    end = first + 2 + 12 * number(first, 2)
    if first + 2 > len(data) or end > len(data):
        return True
    for entry in range(first + 2, end, 12):
        size = _TIFF_TYPE_SIZES.get(number(entry + 2, 2), 0) * number(entry + 4, 4)
        if size > 4 and number(entry + 8, 4) + size > len(data):
            return True
    return False
