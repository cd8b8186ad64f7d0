"""How well odd boards, and what is odd on them, are found: DeepPCB with the pocket encoder.

    python -m benchmarks.anomaly [--data ../shared/data] [--heatmaps DIR]

60 pairs of a good circuit board's picture (the template) and one of the same part with defects,
whose boxes are known. The templates are dealt into five folds. Templates of four folds, or for
each fold one or four of them drawn at random, are the normal images; those of the fifth and the
defective boards that belong to it are scored. So no board is compared with its own template, and
nothing here compares pixels. ``image``: AUROC of defective boards against held-out templates.
``pixel``: AUROC of all pixels (every fourth row and column) of defective boards, in a box against
outside. ``own template``: the bank is the board's own template, as on a line that knows what it
makes.

Beside the patches of the encoder's middle map stand those of its last one; the mean of all patch
distances instead of the highest 1 %; each patch compared only with those at the same place of the
normal pictures (as PaDiM does); and whole pictures by their vectors in three ways.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from app.heat import overlay
from retrieval.encoders import EncoderSpec, PatchTokens, load
from retrieval.query.anomaly.bank import KEEP
from retrieval.query.anomaly.images import Normals
from retrieval.query.anomaly.limits import fit_limit
from retrieval.query.anomaly.patches import (
    PatchMap,
    coreset,
    nearest_distances,
    share_of,
    top_mean,
)
from retrieval.query.anomaly.tiling import Places, places
from retrieval.query.explain import View

RESULT = Path(__file__).parent / "results" / "anomaly.json"
FOLDS, STEP, SEED = 5, 4, 0

Floats = NDArray[np.float32]
Maps = Callable[[Places, Sequence[Places]], PatchMap]


@dataclass
class Board:
    """One pair, and where the defects are."""

    good: Image.Image
    bad: Image.Image
    mask: NDArray[np.bool_]


class LastMap:
    """The pocket encoder as if it had no middle map."""

    def __init__(self) -> None:
        """Stand on the real one."""
        self._encoder = load("pocket-visual")
        self.spec: EncoderSpec = self._encoder.spec
        self.weights_hash, self.runtime = self._encoder.weights_hash, self._encoder.runtime

    def encode_images(self, images: Sequence[Image.Image]) -> Floats:
        """As the real one."""
        return self._encoder.encode_images(images)

    def encode_patches(self, images: Sequence[Image.Image]) -> PatchTokens:
        """As the real one."""
        return self._encoder.encode_patches(images)


def boards(data: Path) -> list[Board]:
    """All pairs, in the order of their names."""
    found = []
    for path in sorted(data.glob("PCBData/*/*/*_temp.jpg")):
        name, folder = path.name.removesuffix("_temp.jpg"), path.parent
        mask = np.zeros((640, 640), dtype=bool)
        text = (folder.parent / f"{folder.name}_not" / f"{name}.txt").read_text()
        for line in text.splitlines():
            x0, y0, x1, y1, _ = map(int, line.split())
            mask[y0:y1, x0:x1] = True
        pair = (
            Image.open(folder / f"{name}_{kind}.jpg").convert("RGB") for kind in ("temp", "test")
        )
        found.append(Board(*pair, mask))
    return found


def auroc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores higher than a negative; ties count half (Mann and Whitney)."""
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[at]
    ones = int(positive.sum())
    wins = ranks[positive].sum() - ones * (ones + 1) / 2
    return float(wins / (ones * (len(positive) - ones)))


def folds(count: int, shots: int | None, seed: int) -> list[tuple[list[int], list[int]]]:
    """Normal images and scored ones of each fold; as many normal ones as asked, or all."""
    rng = np.random.default_rng(seed)
    dealt = np.arange(count) % FOLDS
    out = []
    for number in range(FOLDS):
        rest = np.flatnonzero(dealt != number)
        chosen = rest if shots is None else rng.choice(rest, shots, replace=False)
        out.append((chosen.tolist(), np.flatnonzero(dealt == number).tolist()))
    return out


def nearest(query: Places, bank: Floats) -> PatchMap:
    """Each patch with the nearest of a bank."""
    far = nearest_distances(query.rows, bank).reshape(query.tokens.shape[:3])
    return PatchMap(far, query.boxes, query.size)


def in_place(query: Places, normals: Sequence[Places]) -> PatchMap:
    """Each patch with those at its place."""
    best = np.max([(query.tokens * one.tokens).sum(axis=-1) for one in normals], axis=0)
    return PatchMap(np.asarray(1 - best, dtype=np.float32), query.boxes, query.size)


class Measured:
    """Scores of one way, over all folds."""

    def __init__(self, count: int) -> None:
        """Nothing yet."""
        self.good, self.bad = np.zeros(count), np.zeros(count)
        self.heat: dict[int, Floats] = {}

    def row(self, all_boards: Sequence[Board]) -> dict[str, float]:
        """Both measures."""
        count = len(self.good)
        odd = np.arange(2 * count) >= count
        out = {"image": auroc(np.concatenate([self.good, self.bad]), odd)}
        if self.heat:
            heat = np.concatenate([self.heat[at].ravel() for at in range(count)])
            inside = [board.mask[2::STEP, 2::STEP].ravel() for board in all_boards]
            out["pixel"] = auroc(heat, np.concatenate(inside))
        return out


def by_patches(
    all_boards: Sequence[Board],
    good: Sequence[Places],
    bad: Sequence[Places],
    shots: int | None,
    seed: int,
    keep: int | None = KEEP,
) -> dict[str, dict[str, float]]:
    """Patches by a bank and by place, and the mean of all distances."""
    count = len(good)
    ways = {name: Measured(count) for name in ("top 1 %", "mean of all", "same place")}
    alarms, found = [], []
    for normal, scored in folds(count, shots, seed):
        blocks = [share_of(good[at].rows, len(normal), keep, at) for at in normal]
        bank, owners = coreset(blocks, keep)
        own = [
            top_mean(nearest_distances(good[at].rows, bank, owners=owners, without=number))
            for number, at in enumerate(normal if shots is None else [])
        ]
        limit = fit_limit(own)
        for at in scored:
            plain, odd = nearest(good[at], bank), nearest(bad[at], bank)
            ways["top 1 %"].good[at], ways["top 1 %"].bad[at] = plain.score, odd.score
            every = ways["mean of all"]
            every.good[at], every.bad[at] = plain.distances.mean(), odd.distances.mean()
            ways["top 1 %"].heat[at] = odd.heatmap()[2::STEP, 2::STEP]
            there = [good[normal_one] for normal_one in normal]
            ways["same place"].good[at] = in_place(good[at], there).score
            aligned = in_place(bad[at], there)
            ways["same place"].bad[at] = aligned.score
            ways["same place"].heat[at] = aligned.heatmap()[2::STEP, 2::STEP]
            alarms.append(limit.exceeded(plain.score))
            found.append(limit.exceeded(odd.score))
    rows = {name: way.row(all_boards) for name, way in ways.items()}
    if shots is None:
        rows["top 1 %"] |= {
            "alarms at 0.05": float(np.mean(alarms)),
            "found": float(np.mean(found)),
        }
    return rows


def by_vectors(good: Floats, bad: Floats, shots: int | None, seed: int) -> dict[str, Any]:
    """Whole pictures."""
    rows = {}
    for method in ("distance", "density", "mahalanobis"):
        if method != "distance" and shots is not None:
            continue
        way = Measured(len(good))
        for normal, scored in folds(len(good), shots, seed):
            normals = Normals(good[normal], method)
            way.good[scored], way.bad[scored] = (
                normals.score(good[scored]),
                normals.score(bad[scored]),
            )
        rows[f"vectors, {method}"] = way.row([])
    return rows


def rounded(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """To three digits."""
    return {way: {key: round(each, 3) for key, each in row.items()} for way, row in rows.items()}


def own_template(
    all_boards: Sequence[Board], good: Sequence[Places], bad: Sequence[Places]
) -> float:
    """Pixel AUROC where each board is compared with its own template."""
    way = Measured(len(good))
    for at, (template, board) in enumerate(zip(good, bad, strict=True)):
        way.heat[at] = nearest(board, template.rows).heatmap()[2::STEP, 2::STEP]
    return round(way.row(all_boards)["pixel"], 3)


def draw(folder: Path, all_boards: Sequence[Board], maps: Sequence[PatchMap]) -> None:
    """Boards with their heat beside the boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, (board, one) in enumerate(zip(all_boards, maps, strict=True)):
        heat = overlay(View(board.bad, (0.0, 0.0, 640.0, 640.0)), one.heatmap())
        both = Image.new("RGB", (2 * heat.width, heat.height))
        both.paste(heat, (0, 0))
        marked = np.asarray(board.bad).copy()
        marked[board.mask] = marked[board.mask] // 2 + np.array([127, 0, 0], dtype=np.uint8)
        both.paste(Image.fromarray(marked).resize(heat.size), (heat.width, 0))
        both.save(folder / f"{at:02d}.png")


def measure(all_boards: Sequence[Board], heatmaps: Path | None) -> dict[str, Any]:
    """Everything."""
    encoder = load("pocket-visual")
    good = encoder.encode_images([board.good for board in all_boards])
    bad = encoder.encode_images([board.bad for board in all_boards])
    results: dict[str, Any] = {}
    shots = {"one": 1, "four": 4, "all": None}
    for name, count in shots.items():
        results[f"{name}-shot"] = rounded(by_vectors(good, bad, count, SEED))
    for label, tiles, seer in (
        *((f"patches, {tiles} x {tiles} tiles", tiles, encoder) for tiles in (3, 2, 1)),
        ("last map, 3 x 3 tiles", 3, LastMap()),
    ):
        sides = [
            [places(seer, picture, tiles) for picture in side]
            for side in zip(*((board.good, board.bad) for board in all_boards), strict=True)
        ]
        for name, count in shots.items():
            for way, row in rounded(by_patches(all_boards, *sides, count, SEED)).items():
                results[f"{name}-shot"][f"{label}, {way}"] = row
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
        own = own_template(all_boards, *sides)
        results.setdefault("own template", {})[label] = {"pixel": own}
        if heatmaps and tiles == 3 and seer is encoder:
            drawn = [nearest(sides[1][at], bank_of(sides[0], at)) for at in range(len(all_boards))]
            draw(heatmaps, all_boards, drawn)
    return results


def bank_of(good: Sequence[Places], at: int) -> Floats:
    """The bank of the fold that a board is scored in."""
    normal = folds(len(good), None, 0)[at % FOLDS][0]
    return coreset([share_of(good[one].rows, len(normal), KEEP, one) for one in normal], KEEP)[0]


def main() -> None:
    """Measure, print, and write ``benchmarks/results/anomaly.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--heatmaps", type=Path)
    given = parser.parse_args()
    with threadpool_limits(1):  # waiting for each other costs more on a shared machine
        results = measure(boards(given.data / "deeppcb"), given.heatmaps)
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    table = Table("normal images", "way", "image AUROC", "pixel AUROC", "false alarms", "found")
    for shots, rows in results.items():
        for way, row in rows.items():
            keys = ("image", "pixel", "alarms at 0.05", "found")
            table.add_row(shots, way, *(f"{row[key]:.3f}" if key in row else "" for key in keys))
    Console().print(table)


if __name__ == "__main__":
    main()
