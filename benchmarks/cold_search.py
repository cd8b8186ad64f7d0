"""What a cold and a warm `retrieval search` cost on 10,000 images, beside unavoidable imports.

    python benchmarks/cold_search.py [--rounds 7]

Whole processes, interleaved; figures are medians of wall time. `imports` is a Python that imports
numpy, pyarrow, lance and onnxruntime and ends; `lancedb client` is one that imports lancedb and
ends, which is what a search through LanceDB's client would pay before it begins. `warm` searches
find a `retrieval warm`, which the others are kept from finding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


def seconds(arguments: tuple[str, ...], runtime: Path) -> float:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
    )
    return time.perf_counter() - start


@contextmanager
def warm_server(path: Path, runtime: Path) -> Iterator[None]:
    server = subprocess.Popen(
        [sys.executable, "-m", "app", "warm", "-c", str(path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    server.stderr.readline()
    try:
        yield
    finally:
        server.terminate()
        server.communicate()


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
            "search by words, warm": ("-m", "app", "search", "a red car", "-c", str(path)),
            "search by id, warm": ("-m", "app", "search", "--id", str(image_id), "-c", str(path)),
            "--help": ("-m", "app", "--help"),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        with warm_server(path, Path(made)):
            for _ in range(rounds):
                for name, command in commands.items():
                    runtime = Path(made) if name.endswith("warm") else Path(made) / "nobody"
                    taken[name].append(seconds(command, runtime))
    medians = {name: round(statistics.median(times), 3) for name, times in taken.items()}
    ratios = {
        name: round(
            statistics.median(a / b for a, b in zip(taken[name], taken["imports"], strict=True)), 2
        )
        for name in commands
        if name.startswith("search") or name == "lancedb client"
    }
    result = {"images": IMAGES, "rounds": rounds, "seconds": medians, "ratio_to_imports": ratios}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
