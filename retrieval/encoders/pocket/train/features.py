"""The backbone's features of the training photos, in several views, kept in the cache."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retrieval.encoders.pocket import graph, weights
from retrieval.encoders.pocket.encoder import PocketTrunk
from retrieval.encoders.pocket.specs import PREPROCESS

_log = logging.getLogger(__name__)

VIEWS = ("plain", "mirrored", "crop1", "crop2")


def photo_features(files: Sequence[Path], view: str, seed: int, cache: Path) -> NDArray[np.float32]:
    """Features ``[files, 2280]`` of one view of every photo.

    Args:
        files: the photos.
        view: ``plain``, ``mirrored``, or ``cropN``: a random part of 60 to 100 % of the area,
            mirrored half of the time.
        seed: of the random crops.
        cache: folder to keep the result in.
    """
    facts = f"{weights.SHA256} {graph.VERSION} {PREPROCESS.hash} {view} {seed}"
    facts += "".join(f"\n{file.parent.name}/{file.name}" for file in files)
    path = cache / f"features-{hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False))
    change = _change(view, seed)
    trunk = PocketTrunk()

    def one(numbered: tuple[int, Path]) -> NDArray[np.float32]:
        index, file = numbered
        with Image.open(file) as opened:
            return trunk.features([change(opened.convert("RGB"), index)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        features: NDArray[np.float32] = np.concatenate(list(pool.map(one, enumerate(files))))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features)
    _log.info("features of %d photos, view %s", len(files), view)
    return features


def _change(view: str, seed: int) -> Callable[[Image.Image, int], Image.Image]:
    if view == "plain":
        return lambda image, _: image
    if view == "mirrored":
        return lambda image, _: ImageOps.mirror(image)
    return lambda image, index: _crop(image, random.Random(f"{seed} {view} {index}"))


def _crop(image: Image.Image, chance: random.Random) -> Image.Image:
    side = chance.uniform(0.6, 1.0) ** 0.5
    width, height = int(image.width * side), int(image.height * side)
    left = chance.randint(0, image.width - width)
    top = chance.randint(0, image.height - height)
    part = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(part) if chance.random() < 0.5 else part


def clothing_photos(folder: Path, split: str) -> list[Path]:
    """The photos of one split of the ``clothing`` set, without their labels."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return [folder / row["file"] for row in csv.DictReader(file) if row["split"] == split]
