"""What a cold `retrieval search` costs on 10,000 images, beside the imports it cannot avoid.

    python benchmarks/cold_search.py [--rounds 7]

Whole processes, interleaved; figures are medians of wall time. `imports` is a Python that imports
numpy, pyarrow, lance and onnxruntime and ends; `lancedb client` is one that imports lancedb and
ends, which is what a search through LanceDB's client would pay before it begins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.encoders import load, space_of
from retrieval.store import Store

RESULTS = Path(__file__).parent / "results" / "cold_search.json"
IMAGES = 10_000


def fill(path: Path) -> int:
    """A collection of 10,000 random vectors in the pocket spaces; the id of one image."""
    spaces = [space_of(load(name)) for name in ("pocket-visual", "pocket-text")]
    store = Store.create(str(path), spaces)
    rng = np.random.default_rng(0)
    columns = {
        "image_id": pa.array(np.arange(IMAGES)),
        "uri": [f"/photos/{number:06d}.jpg" for number in range(IMAGES)],
        "thumbnail": pa.array([rng.bytes(8000) for _ in range(IMAGES)], pa.large_binary()),
    }
    for space in spaces:
        rows = rng.standard_normal((IMAGES, space.dim)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        columns[store.vector_column(space.name)] = pa.FixedSizeListArray.from_arrays(
            pa.array(rows.ravel()), space.dim
        )
    store.upsert(pa.table(columns))
    store.optimize()
    return 77


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "c.lance"
        image_id = fill(path)
        commands = {
            "python": ("-c", "pass"),
            "imports": ("-c", "import numpy, pyarrow, lance, onnxruntime"),
            "lancedb client": ("-c", "import lancedb"),
            "search by words": ("-m", "app", "search", "a red car", "-c", str(path)),
            "search by id": ("-m", "app", "search", "--id", str(image_id), "-c", str(path)),
            "--help": ("-m", "app", "--help"),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                taken[name].append(seconds(*command))
    medians = {name: round(statistics.median(times), 3) for name, times in taken.items()}
    ratios = {
        name: round(
            statistics.median(a / b for a, b in zip(taken[name], taken["imports"], strict=True)), 2
        )
        for name in ("search by words", "search by id", "lancedb client")
    }
    result = {"images": IMAGES, "rounds": rounds, "seconds": medians, "ratio_to_imports": ratios}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
