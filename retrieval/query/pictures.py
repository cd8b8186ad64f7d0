"""The picture behind a record: its file while that is unchanged, else its thumbnail."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from retrieval import settings
from retrieval.errors import ImageError, QueryError
from retrieval.images import content_hash, decode
from retrieval.store import Store
from retrieval.types import ImageRecord
from retrieval.uris import path_of


def stored_picture(store: Store, record: ImageRecord) -> tuple[Image.Image, str]:
    """The pixels of an image as it was indexed: its file, else its thumbnail.

    Returns:
        RGB picture, and why it is not the file; empty if it is.

    Raises:
        QueryError: if there is neither.
    """
    try:
        return decode(_bytes(record), max_pixels=settings.load().max_pixels).image, ""
    except (QueryError, ImageError, OSError) as error:
        reason = str(error)
    packed = store.thumbnails([record.image_id]).get(record.image_id)
    if packed is None:
        raise QueryError(f"{record.uri}: {reason}, and there is no thumbnail of it")
    return decode(packed).image, f"{record.uri}: {reason}; what is shown is its thumbnail"


def _bytes(record: ImageRecord) -> bytes:
    path = path_of(record.uri)
    if path is None:
        raise QueryError("it is not a local file")
    if not Path(path).is_file():
        raise QueryError("the file is gone")
    data = Path(path).read_bytes()
    if content_hash(data) != record.content_hash:
        raise QueryError("the file has changed since it was indexed")
    return data
