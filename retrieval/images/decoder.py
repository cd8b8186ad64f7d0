"""One safe way from the bytes of a file to an upright RGB picture."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from retrieval.errors import ImageError
from retrieval.images.exif import read_camera
from retrieval.images.formats import is_cut_short, refused_format, sniff
from retrieval.images.pixels import to_rgb
from retrieval.settings import DEFAULT_MAX_PIXELS


class _JpegFile(JpegImagePlugin.JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Leave EXIF for later: nobody asks for dots per inch, and a broken block may raise."""


# The reader is chosen here and not by Image.open: no other plugin ever sees the bytes, and
# Pillow's process-wide MAX_IMAGE_PIXELS, which belongs to the application, is neither needed
# nor touched.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_SIDE_FOR_THUMBNAIL = 384  # half again what a thumbnail has on its longest side
_PILLOW_REMARKS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_TOO_MUCH = (MemoryError, Image.DecompressionBombError)
_NOT_READABLE = ("unknown", "unsupported", "not supported", "not implemented", "conversion from")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded file.

    Attributes:
        image: mode RGB, upright, fully loaded, without metadata; may be smaller than the
            picture in the file if ``min_side`` was given.
        width: pixels of the picture in the file, after EXIF orientation.
        height: pixels of the picture in the file, after EXIF orientation.
        format: ``JPEG``, ``PNG``, …, from the content.
        captured_at: EXIF ``DateTimeOriginal``, without time zone.
        exif: camera facts as clean text (see :class:`retrieval.images.exif.CameraFacts`).
    """

    image: Image.Image
    width: int
    height: int
    format: str
    captured_at: datetime | None = None
    exif: dict[str, str] = field(default_factory=dict)


def content_hash(data: bytes) -> str:
    """BLAKE2b-128 of ``data``, 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def decode(
    data: bytes, *, min_side: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Picture:
    """Decode the first picture of a file. Safe to call from several threads.

    Args:
        data: the whole file.
        min_side: allows a reduced scale, for encoders that tolerate it: the side of their input,
            pixels. A JPEG is then decoded at 1/2, 1/4 or 1/8 where that leaves twice this length
            on the shorter side, enough for a thumbnail, and no fraction of a pixel. Two to four
            times as fast on large photos and the same to the eye, but not the same pixels: the
            pocket encoders lose up to 1e-3 of cosine and do not tolerate it
            (``benchmarks/decode.py``). None gives exactly the pixels of plain Pillow.
        max_pixels: a picture that declares more is refused before it is decoded.

    Raises:
        ImageError: of kind ``empty``, ``not-an-image``, ``unsupported``, ``too-large``,
            ``truncated`` or ``corrupt``.
    """
    name = _format_of(data)
    silence_pillow()
    try:
        file = _open(data, name)
        size = file.size
        check_pixels(size, max_pixels)
        if min_side is not None and name == "JPEG":
            _reduce_scale(file, min_side)
        file.load()
        camera = read_camera(file)
        image = camera.turn(to_rgb(file))
    except ImageError:
        raise
    except Exception as error:  # a decoder at odds with its bytes may raise anything
        raise _refusal(error, data, name) from error
    image.info.clear()
    width, height = camera.turn_size(size)
    return Picture(image, width, height, name, camera.captured_at, camera.facts)


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture of ``(width, height)`` that has more than ``max_pixels``."""
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            "too-large",
            f"{width} × {height} pixels are more than the limit of {max_pixels}; "
            "set RETRIEVAL_MAX_PIXELS to allow them",
        )


def _format_of(data: bytes) -> str:
    if not data:
        raise ImageError("empty", "the file has no bytes")
    name = sniff(data[:256])
    if name is None:
        if refused := refused_format(data[:256]):
            raise ImageError("unsupported", f"{refused} files are not read; convert to PNG or JPEG")
        raise ImageError("not-an-image", "the content is no picture format that is known here")
    if name == "AVIF" and not AvifImagePlugin.SUPPORTED:
        raise ImageError("unsupported", "this Pillow was built without AVIF; install its wheel")
    return name


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header; no pixel is decoded yet."""
    if name != "HEIF":
        return _READERS[name](io.BytesIO(data))
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(
            "unsupported", "HEIC needs a package more: pip install pillow-heif"
        ) from error
    file: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))
    return file


def _reduce_scale(file: ImageFile.ImageFile, min_side: int) -> None:
    """Have libjpeg leave out the frequencies that the later resize would throw away."""
    short, long = sorted(file.size)
    for scale in (8, 4, 2):
        # A remainder would be rounded up to a whole pixel and shift the picture against itself.
        whole = short % scale == 0 and long % scale == 0
        if whole and short >= scale * 2 * min_side and long >= scale * _SIDE_FOR_THUMBNAIL:
            file.draft(None, (file.width // scale, file.height // scale))
            return


def silence_pillow() -> None:
    """Keep Pillow's remarks on odd files (tags, palettes) from users and from ``-W error``.

    ``warnings.catch_warnings`` is not thread-safe; a lasting filter is, and it is put back in
    front whenever other code has dropped or overruled it.
    """
    if warnings.filters[:1] != [_PILLOW_REMARKS]:
        warnings.filterwarnings("ignore", module=_PILLOW_REMARKS[3].pattern)


def _refusal(error: Exception, data: bytes, name: str) -> ImageError:
    """Say why ``data`` could not be decoded."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    lower = said.lower()
    if isinstance(error, _TOO_MUCH) or "too large" in lower:
        return ImageError("too-large", f"the {name} file needs too much memory: {said}")
    if "truncated" in lower or is_cut_short(data, name):
        return ImageError("truncated", f"the {name} file is cut short: {said}")
    if any(words in lower for words in _NOT_READABLE):
        return ImageError("unsupported", f"this kind of {name} is not read: {said}")
    return ImageError("corrupt", f"the {name} file is damaged: {said}")
