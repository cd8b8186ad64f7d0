"""Images and text to embeddings."""

from retrieval.encoders.base import Encoder, EncoderSpec, TextEncoder, encode_spaces, space_of
from retrieval.encoders.catalogue import describe, load, resolve, specs
from retrieval.encoders.preprocess import Preprocess

__all__ = [
    "Encoder",
    "EncoderSpec",
    "Preprocess",
    "TextEncoder",
    "describe",
    "encode_spaces",
    "load",
    "resolve",
    "space_of",
    "specs",
]
