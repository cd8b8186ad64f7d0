"""Collections with twins and near copies, the pairs they truly have, and a run that is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.images.thumbnails import thumbnail
from retrieval.query import Collection
from retrieval.query.duplicates import pairs
from retrieval.store import Store
from retrieval.types import Space

SPACE, DIM = "s", 8
SMALL = 40_000  # bytes of memory, in which a join takes many steps
DOT = thumbnail(PIL.Image.new("RGB", (4, 4)))
Image = tuple[str, NDArray[np.float32] | None]
"""Content hash and vector."""


def unit(seed: int, n: int, spread: float = 0.25) -> NDArray[np.float32]:
    """Unit rows of which many lie close together."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).standard_normal((max(1, n // 4), DIM))
    rows = centres[rng.integers(0, len(centres), n)] + spread * rng.standard_normal((n, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def hash_of(content: object) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def new(place: Path | str, weights: str = "w") -> Store:
    """An empty collection with one space."""
    made = ("own", weights * 32, "p" * 32, "cls")
    return Store.create(place, [Space(SPACE, *made, DIM, ("image",))])


def put(store: Store, images: Mapping[int, Image], **more: Sequence[Any]) -> None:
    """Upsert images by id."""
    vectors = [None if v is None else v.tolist() for _, v in images.values()]
    columns = {
        "image_id": pa.array(list(images), pa.int64()),
        "uri": [f"/photos/{i}.jpg" for i in images],
        "content_hash": [content for content, _ in images.values()],
        "width": pa.array([64] * len(images), pa.int32()),
        "height": pa.array([48] * len(images), pa.int32()),
        "thumbnail": [DOT] * len(images),
        f"vector_{SPACE}": pa.array(vectors, pa.list_(pa.float32(), DIM)),
        f"embedded_{SPACE}": [v is not None for v in vectors],
    }
    store.upsert(pa.table(columns | more))


def filled(place: Path | str, n: int = 400, seed: int = 0) -> dict[int, Image]:
    """A collection of ``n`` images of which every tenth has the bytes of the one before."""
    vectors = unit(seed, n)
    images: dict[int, Image] = {
        i: (hash_of(i - (i % 10 == 9)), vectors[i - (i % 10 == 9)]) for i in range(n)
    }
    put(new(place), images)
    return images


Scored = dict[tuple[int, int], float]


def collapsed(images: Mapping[int, Image]) -> dict[int, NDArray[np.float64]]:
    """Vectors of the distinct contents that have one, by the lowest id of each."""
    lowest: dict[str, int] = {}
    found: dict[int, NDArray[np.float64]] = {}
    for i in sorted(images):
        content, vector = images[i]
        name = lowest.setdefault(content, i)
        if vector is not None:
            found.setdefault(name, vector.astype(np.float64))
    return found


def truth(images: Mapping[int, Image]) -> Scored:
    """The cosine of every pair of contents."""
    found = collapsed(images)
    ids = sorted(found)
    if not ids:
        return {}
    cosines = np.stack([found[i] for i in ids]) @ np.stack([found[i] for i in ids]).T
    n = range(len(ids))
    return {(ids[a], ids[b]): float(cosines[a, b]) for a in n for b in n if a < b}


def scored(found: pairs.Pairs) -> Scored:
    keys = zip(found.a.tolist(), found.b.tolist(), strict=True)
    made = dict(zip(keys, found.scores.tolist(), strict=True))
    assert len(made) == len(found), "a pair came twice"
    return made


def check(found: pairs.Pairs, true: Scored, threshold: float) -> None:
    """See that pairs are the true ones; those within rounding of the threshold may be either."""
    made = scored(found)
    sure = {pair for pair, cosine in true.items() if cosine >= threshold + 1e-6}
    perhaps = {pair for pair, cosine in true.items() if cosine >= threshold - 1e-6}
    assert sure <= made.keys() <= perhaps
    assert all(abs(score - true[pair]) < 1e-6 for pair, score in made.items())
    assert (found.tiers >= 0).all() and all(found.whys)
    assert list(made) == sorted(made)


def impatient() -> None:
    """Keep what was found at every occasion."""
    pairs._SAVE_EVERY_S, pairs._SAVE_SHARE, pairs._LOOKS = 0.0, 0.0, 40


def die(place: str, step: int) -> None:
    """Look for pairs and be killed instead of the n-th step of writing anything down."""
    impatient()
    left = [step]

    def counted(real: Any) -> Any:
        def instead(*arguments: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*arguments)

        return instead

    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    pairs.find_pairs(Collection(Store.open(place)), SPACE, 0.9, memory_bytes=SMALL)


if __name__ == "__main__":
    die(sys.argv[1], int(sys.argv[2]))
