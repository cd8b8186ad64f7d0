"""Real photos: full scale is plain Pillow bit for bit, reduced scale looks the same.

Equal pixels give every encoder a cosine of 1 to the plain path. A reduced scale does not: what it
costs an encoder is measured by ``benchmarks/decode.py`` and has to be known before it is used.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.encoders.preprocess import Preprocess
from retrieval.images import decode, load, thumbnail
from tests.hostile import pack

PREPROCESS = Preprocess(224, "shortest", 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SETS = {"clothing": "images", "coco128": "val2017", "sam_images": "."}


def plain(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def photos(folder: Path, count: int) -> list[bytes]:
    paths = sorted(folder.glob("*.jpg"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)]]


def decibels(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio."""
    error = ((image.astype(float) - reference.astype(float)) ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("name", sorted(SETS))
def test_full_scale_is_plain_pillow_bit_for_bit(shared_data, name) -> None:
    for data in photos(shared_data(name) / SETS[name], 10):
        expected = np.asarray(plain(data))
        assert (np.asarray(decode(data).image) == expected).all()
        assert (np.asarray(load(data)) == expected).all()


@pytest.mark.parametrize("name", ["clothing", "coco128"])
def test_small_photos_stay_at_full_scale(shared_data, name) -> None:
    for data in photos(shared_data(name) / SETS[name], 10):
        assert (np.asarray(decode(data, min_side=256).image) == np.asarray(plain(data))).all()


@pytest.mark.parametrize("size", [None, (2000, 1500), (4000, 3000)])
def test_reduced_scale_looks_the_same(shared_data, size) -> None:
    seen = 0
    for data in photos(shared_data("sam_images"), 11):
        full = plain(data)
        if min(full.size) < 1200 or (seen == 2 and size):
            continue
        if size:
            full = full.resize(size, Image.Resampling.BICUBIC)
        elif full.width % 2 or full.height % 2:
            full = full.crop((0, 0, full.width // 2 * 2, full.height // 2 * 2))
        data = pack(full, "JPEG", quality=90)
        full, reduced = plain(data), decode(data, min_side=256)
        assert (reduced.width, reduced.height) == full.size
        assert 512 <= min(reduced.image.size) <= min(full.size) / 2
        assert decibels(PREPROCESS.pixels(reduced.image), PREPROCESS.pixels(full)) > 45
        small = [Image.open(io.BytesIO(thumbnail(image))) for image in (reduced.image, full)]
        assert decibels(np.asarray(small[0]), np.asarray(small[1])) > 27
        seen += 1
    assert seen >= 2


def test_an_odd_pixel_keeps_the_full_scale(shared_data) -> None:
    """At half scale it would become a whole one, and 5e-3 of the pocket encoders' cosine."""
    path = shared_data("sam_images") / "app_assets_picture4.jpg"
    data = path.read_bytes()
    assert plain(data).size == (2048, 1365)
    assert (np.asarray(decode(data, min_side=224).image) == np.asarray(plain(data))).all()
