"""Ingested vectors equal those of plain Pillow: reduced JPEG decoding only where it keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import retrieval
from indexers import ingest
from retrieval.encoders import Encoder, load
from tests.encoders_of_tests import ColourEncoder


class Tolerant(ColourEncoder):
    """Averages so many pixels that the scale of decoding does not matter."""

    spec = replace(ColourEncoder.spec, reduced_decode=True)


@pytest.fixture(scope="module")
def photos(shared_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    for number, path in enumerate(sorted(shared_data("sam_images").glob("*.jpg"))[:6]):
        with Image.open(path) as opened:
            large = opened.convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
        exif = large.getexif()
        exif[0x0112] = 1 + number
        large.save(folder / f"{number}.jpg", quality=90, exif=exif)
    return folder


@pytest.mark.parametrize("name", ["tolerant", "pocket-visual", "pocket-text"])
def test_cosine_to_the_plain_path_is_at_least_0_9999(photos, tmp_path, name):
    encoder: Encoder = Tolerant() if name == "tolerant" else load(name)
    ingest(photos, tmp_path / "c", encoders=[encoder])
    store = retrieval.open(tmp_path / "c").store
    paths = sorted(photos.iterdir())
    ids = [store.find_uri(str(path)) for path in paths]
    stored = store.vectors_of(encoder.spec.name, ids)
    plain = []
    for path in paths:
        with Image.open(path) as opened:
            plain.append(ImageOps.exif_transpose(opened).convert("RGB"))
    cosines = (stored * encoder.encode_images(plain)).sum(axis=1)
    assert cosines.min() >= 0.9999
    assert np.linalg.norm(stored[0] - stored[1]) > 0.01
