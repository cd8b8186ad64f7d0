"""What decoding costs: plain Pillow, our decoder, and our decoder at reduced JPEG scale.

    python -m benchmarks.decode [--rounds 7] [--data ../shared/data]

Every variant turns the same files into 224 px network input on one thread; rounds are interleaved
and the medians of CPU time compared, so that a busy machine disturbs all variants alike. The cost
of a reduced scale in embedding is told as ``1 - cosine`` of the pocket trunk's pooled features.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, features
from rich.console import Console
from rich.table import Table

from retrieval import settings
from retrieval.encoders.preprocess import Preprocess
from retrieval.images import content_hash, decode, thumbnail

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESS = Preprocess(224, "shortest", 256, "bicubic", MEAN, STD)
RESULT = Path(__file__).parent / "results" / "decode.json"

Job = Callable[[bytes], object]


def read(paths: Sequence[Path], shorter: int) -> list[bytes]:
    """The files among ``paths`` whose shorter side has at least ``shorter`` pixels."""
    return [path.read_bytes() for path in paths if min(Image.open(path).size) >= shorter]


def resize(data: bytes, size: tuple[int, int]) -> bytes:
    """The same photo at another size, JPEG quality 90."""
    packed = io.BytesIO()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.resize(size, Image.Resampling.LANCZOS).save(packed, "JPEG", quality=90)
    return packed.getvalue()


def photo_sets(root: Path) -> dict[str, list[bytes]]:
    """Real photos by size: as they are, and at what a camera makes."""
    large = read(sorted((root / "sam_images").glob("*.jpg")), 1200)
    even = [resize(data, (2048, 1368)) for data in large]
    return {
        "clothing, 256 px": read(sorted((root / "clothing/images").glob("*.jpg"))[:100], 1),
        "coco128, 640 px": read(sorted((root / "coco128/val2017").glob("*.jpg"))[:60], 1),
        "sam_images, 2 to 3 MP": large,
        "sam_images at 2048x1368": even,
        "sam_images at 2000x1500": [resize(data, (2000, 1500)) for data in large],
        "sam_images at 4000x3000": [resize(data, (4000, 3000)) for data in large],
    }


def plain(data: bytes) -> object:
    """What most code does."""
    return PREPROCESS.pixels(Image.open(io.BytesIO(data)).convert("RGB"))


def full(data: bytes) -> object:
    """Our decoder, every pixel."""
    return PREPROCESS.pixels(decode(data).image)


def reduced(data: bytes) -> object:
    """Our decoder at a reduced JPEG scale where twice the network input is left."""
    return PREPROCESS.pixels(decode(data, min_side=PREPROCESS.size).image)


def milliseconds(jobs: dict[str, tuple[Job, list]], rounds: int) -> dict[str, float]:
    """Median CPU time of each job per item, rounds interleaved."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (job, items) in jobs.items():
            start = time.process_time()
            for item in items:
                job(item)
            times[name].append(1000 * (time.process_time() - start) / len(items))
    return {name: statistics.median(values) for name, values in times.items()}


def cosine_losses(files: Sequence[bytes]) -> list[float]:
    """``1 - cosine`` between reduced and full scale, for files that get a reduced one."""
    import onnxruntime

    from retrieval.encoders.pocket.graph import POOLED, graph_bytes

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = graph_bytes(settings.load().cache_dir)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    losses = []
    for data in files:
        images = [decode(data, min_side=PREPROCESS.size).image, decode(data).image]
        if images[0].size == images[1].size:
            continue
        feeds = {name: PREPROCESS.inputs(images)["pixels"]}
        rows = session.run(None, feeds)[0][:, :POOLED].astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        losses.append(float(1 - rows[0] @ rows[1]))
    return losses


def measure(files: list[bytes], rounds: int) -> dict[str, object]:
    """All figures of one set."""
    images = [decode(data).image for data in files]
    ms = milliseconds(
        {
            "plain": (plain, files),
            "full": (full, files),
            "reduced": (reduced, files),
            "thumbnail": (thumbnail, images),
            "content_hash": (content_hash, files),
        },
        rounds,
    )
    losses = cosine_losses(files)
    return {
        "photos": len(files),
        "cpu_ms_per_image": {name: round(value, 3) for name, value in ms.items()},
        "times_faster_than_plain": {
            name: round(ms["plain"] / ms[name], 2) for name in ("full", "reduced")
        },
        "thumbnail_bytes": round(statistics.mean(len(thumbnail(image)) for image in images)),
        "cosine_loss": {"max": max(losses), "median": statistics.median(losses)}
        if losses
        else None,
    }


def show(results: dict[str, dict]) -> None:
    """Print one row a set."""
    table = Table("photos", "plain ms", "full", "reduced", "thumbnail ms", "hash ms", "cosine loss")
    for name, result in results.items():
        ms, ratio = result["cpu_ms_per_image"], result["times_faster_than_plain"]
        loss = result["cosine_loss"]
        table.add_row(
            name,
            f"{ms['plain']:.2f}",
            f"{ratio['full']:.2f}x",
            f"{ratio['reduced']:.2f}x",
            f"{ms['thumbnail']:.2f}",
            f"{ms['content_hash']:.2f}",
            f"max {loss['max']:.1e}" if loss else "same pixels",
        )
    Console().print(table)


def main() -> None:
    """Measure, print, and write ``benchmarks/results/decode.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    results = {
        name: measure(files, options.rounds) for name, files in photo_sets(options.data).items()
    }
    versions = {
        "pillow": Image.__version__,
        "libjpeg-turbo": features.version("libjpeg_turbo"),
        "cpus": os.cpu_count(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"machine": versions, "sets": results}, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    main()
