"""An encoder small enough to read: the living example of the protocol, and fast in tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from retrieval.encoders import EncoderSpec, Preprocess
from retrieval.encoders.base import unit_rows

WORDS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class ColourEncoder:
    """Embeds a picture as its 4×4 thumbnail, and a colour word as a picture of that colour."""

    runtime = "numpy"
    weights_hash = "none"
    spec = EncoderSpec(
        name="colour",
        family="test",
        dim=49,
        modalities=("image", "text"),
        preprocess=Preprocess(4, "squash", 4, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        pooling="none",
        source="tests",
        revision="1",
        licence="Apache-2.0",
        size_mb=0,
        summary="colours, for tests",
    )

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        pixels = self.spec.preprocess.inputs(images)["pixels"].reshape(len(images), 48)
        return unit_rows(np.hstack([pixels, np.full((len(images), 1), 0.5, np.float32)]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode_images([Image.new("RGB", (4, 4), WORDS[text]) for text in texts])


class FragileEncoder(ColourEncoder):
    """Fails on any batch that holds a picture of exactly this size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        if any(image.size == self.size for image in images):
            raise RuntimeError("this picture breaks the network")
        return super().encode_images(images)
