"""Pictures from bytes nobody vouches for: sniff, decode to upright RGB, shrink, hash.

What a file is called is never believed. Colours are taken as they stand, embedded ICC profiles
included: the reference pipelines of all encoders here do the same, and vectors must match theirs.
"""

from retrieval.images.decoder import Picture, content_hash, decode
from retrieval.images.formats import IMAGE_EXTENSIONS, looks_like_image
from retrieval.images.inputs import ImageInput, load
from retrieval.images.thumbnails import thumbnail
from retrieval.settings import DEFAULT_MAX_PIXELS

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "ImageInput",
    "Picture",
    "content_hash",
    "decode",
    "load",
    "looks_like_image",
    "thumbnail",
]
