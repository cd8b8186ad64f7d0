"""Where ingestion's CPU time goes, and how it compares with a loop that takes one file at a time.

    python benchmarks/ingest.py [--data ../shared/data] [--images 400] [--rounds 3]

The peer does what one-by-one indexers do: open a file with Pillow, run the same network on it with
ONNX Runtime on all cores, insert and commit one row into SQLite. It writes no thumbnail and no
content hash. Both run in this process, interleaved; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from indexers import ingest
from retrieval import settings
from retrieval.encoders import load
from retrieval.encoders.pocket.graph import graph_bytes
from retrieval.encoders.runtimes.onnx import OnnxGraph

RESULTS = Path(__file__).parent / "results" / "ingest.json"
CORES = len(os.sched_getaffinity(0))
STAGES = ("read", "hash", "decode", "thumbnail", "encode")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(folder: Path) -> dict[str, float]:
    """One clean ingest run: wall, CPU, and CPU by stage."""
    with tempfile.TemporaryDirectory() as made:
        cpu, wall = cpu_seconds(), time.perf_counter()
        report = ingest(folder, Path(made) / "c.lance")
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    stages = {stage: report.cpu_seconds[stage] for stage in STAGES}
    rest = cpu - sum(stages.values())
    return {"images": report.added, "wall": wall, "cpu": cpu, **stages, "write and rest": rest}


def one_by_one(folder: Path, graph: OnnxGraph) -> dict[str, float]:
    """The peer: wall and CPU."""
    preprocess = load("pocket-visual").spec.preprocess
    with tempfile.TemporaryDirectory() as made:
        base = sqlite3.connect(Path(made) / "peer.db")
        base.execute("create table images (path text primary key, mtime real, vector blob)")
        cpu, wall = cpu_seconds(), time.perf_counter()
        for path in sorted(folder.rglob("*.jpg")):
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            (vector, *_) = graph.run(preprocess.inputs([image]), graph.outputs[:1])
            row = (str(path), path.stat().st_mtime, vector.tobytes())
            base.execute("insert into images values (?, ?, ?)", row)
            base.commit()
        return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def large_photos(source: Path, folder: Path, count: int) -> Path:
    """Photos of 2,000 by 1,500 pixels, enlarged from real ones."""
    folder.mkdir()
    originals = sorted(source.glob("*.jpg"))
    for number in range(count):
        with Image.open(originals[number % len(originals)]) as opened:
            photo = opened.convert("RGB").resize((2000, 1500), Image.Resampling.BICUBIC)
        photo = photo.rotate(number // len(originals), resample=Image.Resampling.BILINEAR)
        photo.save(folder / f"{number:04d}.jpg", quality=90)
    return folder


def small_photos(source: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for path in sorted(source.glob("*.jpg"))[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def median(rounds: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in rounds)


def measure(folder: Path, graph: OnnxGraph, rounds: int) -> dict[str, object]:
    mine, peer = [], []
    for _ in range(rounds):
        mine.append(ours(folder))
        peer.append(one_by_one(folder, graph))
    shares = {
        stage: round(statistics.median(each[stage] / each["cpu"] for each in mine), 4)
        for stage in (*STAGES, "write and rest")
    }
    other = 1 - shares["decode"] - shares["encode"]
    return {
        "images": int(mine[0]["images"]),
        "images_per_second": round(mine[0]["images"] / median(mine, "wall"), 1),
        "share_of_cpu_by_stage": shares,
        "share_of_all_but_decode_and_encode": round(other, 4),
        "wall_over_cpu_per_core": round(
            statistics.median(each["wall"] * CORES / each["cpu"] for each in mine), 3
        ),
        "one_by_one_images_per_second": round(mine[0]["images"] / median(peer, "wall"), 1),
        "times_faster_than_one_by_one": round(
            statistics.median(p["wall"] / m["wall"] for m, p in zip(mine, peer, strict=True)), 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    graph = OnnxGraph(graph_bytes(settings.load().cache_dir), threads=0)
    with tempfile.TemporaryDirectory() as made:
        small = small_photos(chosen.data / "clothing/images", Path(made, "small"), chosen.images)
        large = large_photos(chosen.data / "sam_images", Path(made, "large"), chosen.images // 4)
        ours(small)
        result = {
            "cores": CORES,
            "rounds": chosen.rounds,
            "clothing": measure(small, graph, chosen.rounds),
            "photos of 2000x1500": measure(large, graph, chosen.rounds),
        }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
