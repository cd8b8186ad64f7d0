"""Texts that are about nothing in particular: what words get from images they do not fit."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval import settings
from retrieval.encoders.base import TextEncoder
from retrieval.encoders.files import put
from retrieval.types import Embeddings


class Background(NamedTuple):
    """The background as one encoder sees it.

    Attributes:
        scenes: what pictures of many kinds show ``[b, dim]``.
        unanswerable: what no picture shows ``[u, dim]``: abstract notions, contracts, formulas,
            code, words and letters at random.
    """

    scenes: Embeddings
    unanswerable: Embeddings


@cache
def texts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The scenes and the unanswerable texts."""
    written = Path(__file__).with_name("background.txt").read_text("utf-8")
    scenes, unanswerable = (part.splitlines()[1:] for part in written.split("# ")[1:])
    return tuple(scenes), tuple(unanswerable)


def background(encoder: TextEncoder) -> Background:
    """The texts' vectors, computed once per encoder and kept in the cache folder.

    Raises:
        EncoderError: if the encoder cannot read the texts.
    """
    scenes, unanswerable = texts()
    vectors = text_vectors(encoder, [*scenes, *unanswerable])
    return Background(vectors[: len(scenes)], vectors[len(scenes) :])


def text_vectors(encoder: TextEncoder, texts: Sequence[str]) -> Embeddings:
    """float32 ``[n, dim]``, computed once per encoder and list and kept in the cache folder.

    Raises:
        EncoderError: if the encoder cannot read the texts.
    """
    spec = encoder.spec
    facts = "\0".join([spec.name, encoder.weights_hash, spec.pooling, *texts])
    name = hashlib.blake2b(facts.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    path = settings.load().cache_dir / "background" / f"{name}.npy"
    vectors = _kept(path, (len(texts), spec.dim))
    if vectors is None:
        vectors = encoder.encode_texts(texts)
        stream = io.BytesIO()
        np.save(stream, vectors, allow_pickle=False)
        with suppress(OSError):  # it will only take its time again
            put(path, stream.getvalue())
    return vectors


def _kept(path: Path, shape: tuple[int, int]) -> Embeddings | None:
    """What ``path`` holds; None if it is missing or damaged."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        return None
    if vectors.shape != shape or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        return None
    return vectors
