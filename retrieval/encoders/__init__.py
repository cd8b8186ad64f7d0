"""Images and text to embeddings."""

from retrieval.encoders.base import (
    DenseEncoder,
    Encoder,
    EncoderSpec,
    PatchTokens,
    TextEncoder,
    encode_spaces,
    space_of,
)
from retrieval.encoders.catalogue import specs
from retrieval.encoders.loading import load, resolve
from retrieval.encoders.preprocess import Preprocess

__all__ = [
    "DenseEncoder",
    "Encoder",
    "EncoderSpec",
    "PatchTokens",
    "Preprocess",
    "TextEncoder",
    "encode_spaces",
    "load",
    "resolve",
    "space_of",
    "specs",
]
