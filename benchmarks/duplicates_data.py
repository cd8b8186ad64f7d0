"""The photos with hidden copies that `duplicates.py` looks for."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.images import load as load_image
from retrieval.query.duplicates.transforms import TRANSFORMS

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Hidden:
    """A folder of photos among which are copies of some.

    Attributes:
        folder: holds all files, without subfolders.
        family: the photo that a file was made of, itself for the photos; by file name.
        made: the transform that made a file, by file name; only copies are in it.
        same: pairs of photos that a person found to be the same picture; they count neither way.
    """

    folder: Path
    family: dict[str, str]
    made: dict[str, str]
    same: frozenset[Pair]

    def judged(self, pairs: NDArray[np.str_]) -> NDArray[np.int8]:
        """int8 ``[m]``: 1 for a true pair of file names ``[m, 2]``, 0 for a false one, -1."""
        out = np.empty(len(pairs), dtype=np.int8)
        for at, (left, right) in enumerate(pairs):
            a, b = sorted((self.family[left], self.family[right]))
            out[at] = 1 if a == b else -1 if (a, b) in self.same else 0
        return out

    def measure(self, pairs: NDArray[np.str_]) -> dict[str, float]:
        """Precision of pairs of file names ``[m, 2]``, and recall of each transform.

        Recall is the share of copies that are paired with the photo they were made of; pairs of
        two copies of one photo count as true for precision only.
        """
        judged = self.judged(pairs)
        found = {a for a, b in pairs.tolist() if self.family[a] == b and a != b}
        found |= {b for a, b in pairs.tolist() if self.family[b] == a and a != b}
        recall = {}
        for transform in TRANSFORMS:
            copies = [name for name, made in self.made.items() if made == transform]
            recall[transform] = len(found.intersection(copies)) / len(copies)
        true, false = int((judged == 1).sum()), int((judged == 0).sum())
        return {
            "precision": round(true / max(1, true + false), 4),
            "false_pairs": false,
            **{name: round(share, 4) for name, share in recall.items()},
            "all": round(float(np.mean(list(recall.values()))), 4),
        }


def hide(data: Path, folder: Path, originals: int, seed: int = 0) -> Hidden:
    """Fill ``folder`` with all photos and every transform's copy of some of them.

    Copies are JPEG at quality 95, as an editor would save them; the transform ``jpeg`` has its own.
    """
    folder.mkdir(parents=True)
    family = {}
    for path in _photos(data):
        shutil.copy(path, folder / path.name)
        family[path.name] = path.name
    rng = np.random.default_rng(seed)
    chosen = rng.choice(sorted(family), size=originals, replace=False)
    made = {}
    for original in chosen.tolist():
        picture = load_image(folder / original)
        for transform, change in TRANSFORMS.items():
            name = f"{Path(original).stem}-{transform}.jpg"
            change(picture, rng).save(folder / name, quality=95)
            family[name], made[name] = original, transform
    return Hidden(folder, family, made, frozenset(_same()))


def _photos(data: Path) -> Iterator[Path]:
    with (data / "flickr8k" / "captions.csv").open(encoding="utf-8") as file:
        test = {row["image"] for row in csv.DictReader(file) if row["split"] == "test"}
    yield from sorted((data / "clothing").rglob("*.jpg"))
    yield from (p for p in sorted((data / "flickr8k").rglob("*.jpg")) if p.name in test)


def _same() -> Iterator[Pair]:
    with (Path(__file__).parent / "duplicates_same.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            a, b = sorted((row["a"], row["b"]))
            yield a, b
