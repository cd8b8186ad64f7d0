"""A teacher that costs nothing, and one distillation in a process of its own."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image

from indexers.distill import Progress, distill, texts
from retrieval.encoders.base import unit_rows
from tests.encoders_of_tests import ColourEncoder

EPOCHS = 6
DIM = 16


class MoodTeacher(ColourEncoder):
    """Places a picture by its mean colours and their spread, a text by its words."""

    spec = replace(ColourEncoder.spec, name="mood", dim=DIM)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        flat = [np.asarray(image.resize((16, 16)), np.float32).reshape(-1, 3) for image in images]
        facts = [[*p.mean(0) / 64 - 2, *p.std(0) / 32 - 1, 0.1] for p in flat]
        turn = np.random.default_rng(0).normal(size=(7, DIM))
        return unit_rows(np.array(facts).reshape(-1, 7) @ turn)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit_rows(np.stack([sum(map(word_vector, text.lower().split())) for text in texts]))


@cache
def word_vector(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIM)


def few_words() -> None:
    """Let the text side learn a few hundred texts instead of forty thousand."""
    texts._PAIRS = 200
    texts._english = lambda: ["dog", "cat", "snow", "grass", "boat", "tree", "house", "river"]


def main(folder: str, captions: str, out: str) -> None:
    few_words()

    def watch(progress: Progress) -> None:
        print(progress.stage, progress.done, progress.total, flush=True)

    distill(MoodTeacher(), folder, out, captions=captions, epochs=EPOCHS, watch=watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
