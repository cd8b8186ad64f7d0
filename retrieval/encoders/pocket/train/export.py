"""From trained modules to the committed artefact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from retrieval.encoders.pocket.artefact import Tensors, quantise
from retrieval.encoders.pocket.graph import POOLED
from retrieval.encoders.pocket.specs import DIM
from retrieval.encoders.pocket.train.bert import Tower
from retrieval.encoders.pocket.train.heads import ImageHead, TextHead


def whitening(features: NDArray[np.float32]) -> Tensors:
    """Half-whitening PCA of pooled features.

    The first 256 eigenvectors of the covariance, each divided by the fourth root of its
    eigenvalue: full whitening would make noise as loud as what distinguishes pictures.

    Args:
        features: float32 ``[n, 2280]`` of photos.
    """
    pooled = features[:, :POOLED].astype(np.float64)
    mean = pooled.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(pooled.T))
    values, vectors = values[::-1][:DIM], vectors[:, ::-1][:, :DIM]
    # An eigenvector's sign is arbitrary; this one does not depend on the library.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(DIM)])
    return {
        "visual.mean": mean.astype(np.float32),
        "visual.matrix": (vectors / values**0.25).astype(np.float16),
    }


def write(
    folder: Path,
    visual: Tensors,
    image_head: ImageHead,
    tower: Tower,
    text_head: TextHead,
    tokenizer: Tokenizer,
) -> None:
    """Quantise everything and write ``pocket.safetensors`` and ``tokenizer.json``."""
    from safetensors.numpy import save

    tensors = {
        **visual,
        **_pack("image.", image_head),
        **_pack("text.", tower),
        **_pack("text.", text_head),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pocket.safetensors").write_bytes(save(tensors))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def _pack(prefix: str, module: nn.Module) -> Tensors:
    """Matrices as 8-bit rows, vectors as float32."""
    out: Tensors = {}
    for name, value in module.state_dict().items():
        array = value.detach().numpy().astype(np.float32)
        # Words are looked up by row; the name says so without the module's ".weight".
        name = name.replace("words.weight", "words")
        out |= quantise(prefix + name, array) if array.ndim == 2 else {prefix + name: array}
    return out
