"""The photos, captions and labels that `relevance.py` asks for and with."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders import load
from retrieval.encoders.base import encode_spaces
from retrieval.images import load as load_image
from retrieval.types import Embeddings


class Photos:
    """The data sets, each photo encoded once by both pocket encoders."""

    def __init__(self, data: Path) -> None:
        """Read the tables."""
        self.data = data
        self.captions: dict[str, dict[str, list[str]]] = {"test": {}, "train": {}}
        with (data / "flickr8k" / "captions.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                self.captions[row["split"]].setdefault(row["image"], []).append(row["caption"])
        with (data / "clothing" / "labels.csv").open(encoding="utf-8") as file:
            self.clothes = list(csv.DictReader(file))
        self.encoders = [load("pocket-text"), load("pocket-visual")]

    def encode(self, images: Iterable[Image.Image]) -> dict[str, Embeddings]:
        """Embeddings of pictures by encoder."""
        parts = [encode_spaces(self.encoders, [image]) for image in images]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def flickr(self) -> dict[str, Embeddings]:
        """The 1,000 test photos."""
        names = self.captions["test"]
        return self.encode(load_image(self.data / "flickr8k" / "images" / name) for name in names)

    def clothing(self, test: bool) -> tuple[dict[str, Embeddings], NDArray]:
        """Photos of one split, and their labels."""
        rows = [row for row in self.clothes if (row["split"] == "test") == test]
        found = self.encode(load_image(self.data / "clothing" / row["file"]) for row in rows)
        return found, np.array([row["label"] for row in rows])

    def coco(self) -> dict[str, Embeddings]:
        """All 128 photos."""
        paths = sorted((self.data / "coco128" / "val2017").glob("*.jpg"))
        return self.encode(load_image(path) for path in paths)

    def copies(self, n: int) -> dict[str, Embeddings]:
        """Every photo of the first ``n`` for training without a tenth of its width and height."""
        rows = [row for row in self.clothes if row["split"] != "test"][:n]

        def cut(row: dict[str, str]) -> Image.Image:
            image = load_image(self.data / "clothing" / row["file"])
            w, h = image.size
            return image.crop((w // 20, h // 20, w - w // 20, h - h // 20))

        return self.encode(cut(row) for row in rows)
