"""Vectors to search in: clusters, and embeddings of real photos repeated with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval import settings
from retrieval.encoders import load

Vectors = NDArray[np.float32]
_BLOCK = 100_000
_NOISE = 0.5  # of a repeated embedding, against its length: cosine about 0.9 to its source
_BATCH = 16


def clusters(n: int, dim: int, seed: int) -> Vectors:
    """Unit rows around 1,000 centres, as embeddings of things of 1,000 kinds would be."""
    centres = np.random.default_rng(7).standard_normal((1000, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    out = np.empty((n, dim), np.float32)
    for at in range(0, n, _BLOCK):
        block = out[at : at + _BLOCK]
        block[:] = centres[rng.integers(0, len(centres), len(block))]
        block += 0.7 * rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return out


def photos(n: int, dim: int, seed: int, data: Path) -> Vectors:
    """Embeddings of real photos by both pocket encoders, repeated with noise; at most 512 wide.

    The noise has the covariance of the embeddings themselves, so that what is repeated is as thick
    in every direction as what is real.
    """
    real = _embedded(data)
    if dim < real.shape[1]:
        _, _, axes = np.linalg.svd(real - real.mean(axis=0), full_matrices=False)
        real = real @ axes[:dim].T
    rng = np.random.default_rng(seed)
    out = np.empty((n, real.shape[1]), np.float32)
    for at in range(0, n, _BLOCK):
        block = out[at : at + _BLOCK]
        # Differences of two pictures are drawn from the embeddings' own distribution.
        first, second, source = (real[rng.integers(0, len(real), len(block))] for _ in range(3))
        block[:] = source + _NOISE * (first - second) / np.sqrt(2)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return out


def _embedded(data: Path) -> Vectors:
    kept = settings.load().cache_dir / "benchmarks" / "photos.npy"
    if not kept.exists():
        files = sorted([*data.glob("clothing/**/*.jpg"), *data.glob("flickr8k/**/*.jpg")])
        encoders = [load("pocket-visual"), load("pocket-text")]
        rows = []
        for at in range(0, len(files), _BATCH):
            images = [Image.open(path).convert("RGB") for path in files[at : at + _BATCH]]
            rows.append(np.hstack([each.encode_images(images) for each in encoders]))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.concatenate(rows) / np.sqrt(2))
    found: Vectors = np.load(kept)
    return found
