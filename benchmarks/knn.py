"""Leave-one-out kNN classification: how long, in how much memory, beside scikit-learn.

    python -m benchmarks.knn [--rows 100000] [--dim 384] [--classes 100] [--k 20] [--rounds 3]

Clusters whose number is the class, of which one in ten is mislabelled. `ours` is
`Collection.evaluate_knn` on a collection in LanceDB: reading it, one self-join for 200 neighbours,
the sweep over k and T, bootstrap and calibration. `ours, graph` is the same without the sweep, and
so for k neighbours alone. `scikit-learn` is `KNeighborsClassifier` (brute force, cosine) on the
array: fitted once, asked for the k + 1 nearest of all rows, of which the row itself is dropped; the
others vote with weight exp((1 - distance) / T). All tell the accuracy; that of the latter two must
agree within 0.1 %. Each run is a process of its own; they take turns. Seconds are from the first
call to the last figure, after the imports; memory is the most that the process ever held.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("LANCE_LOG", "error")

from retrieval import settings

RESULTS = Path(__file__).parent / "results" / "knn.json"
SPACE, TEMPERATURE = "space", 0.07
_WRONG = 0.1  # share of the labels


def clouds(n: int, dim: int, classes: int) -> tuple[Any, Any]:
    """Unit rows around one centre a class, and labels of which some are wrong."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, classes, n)
    rows = rng.standard_normal((classes, dim), dtype=np.float32)[codes]
    rows += 3 * rng.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    wrong = rng.random(n) < _WRONG
    codes[wrong] = rng.integers(0, classes, int(wrong.sum()))
    return rows, codes


def fill(place: Path, rows: Any, codes: Any) -> None:
    """Put rows and labels into a new collection."""
    import pyarrow as pa

    from retrieval.store import Store
    from retrieval.types import Space

    made = ("benchmark", "w" * 32, "p" * 32, "cls")
    store = Store.create(place, [Space(SPACE, *made, rows.shape[1], ("image",))])
    for at in range(0, len(rows), 50_000):
        some = rows[at : at + 50_000]
        ids = np.arange(at, at + len(some))
        columns = {
            "image_id": ids,
            "uri": [f"/data/photos/{i:08d}.jpg" for i in ids],
            "content_hash": [f"{i:032x}" for i in ids],
            "label": [f"{code:04d}" for code in codes[ids]],
            store.vector_column(SPACE): pa.FixedSizeListArray.from_arrays(
                pa.array(some.ravel()), rows.shape[1]
            ),
            f"embedded_{SPACE}": pa.array([True] * len(some)),
        }
        store.upsert(pa.table(columns))


def ours(folder: Path, k: int) -> float:
    return _evaluated(folder, k).accuracy.value


def ours_graph(folder: Path, k: int) -> float:
    return _evaluated(folder, k, ks=(k,), temperatures=(TEMPERATURE,)).accuracy.value


def _evaluated(folder: Path, k: int, **sweep: Any) -> Any:
    from retrieval.query import Collection
    from retrieval.store import Store

    collection = Collection(Store.open(folder / "collection"))
    return collection.evaluate_knn(k=k, temperature=TEMPERATURE, **sweep)


def sklearn_brute(folder: Path, k: int) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    rows, codes = np.load(folder / "rows.npy"), np.load(folder / "codes.npy")
    model = KNeighborsClassifier(k + 1, algorithm="brute", metric="cosine").fit(rows, codes)
    distances, near = model.kneighbors(rows)
    own = near == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True
    distances, near = (each[~own].reshape(len(rows), k) for each in (distances, near))
    weights = np.exp((1 - distances) / TEMPERATURE)
    classes = int(codes.max()) + 1
    right = 0
    for at in range(0, len(rows), 10_000):
        some = slice(at, at + 10_000)
        cells = np.arange(len(near[some]))[:, None] * classes + codes[near[some]]
        total = np.bincount(
            cells.ravel(), weights[some].ravel(), minlength=len(near[some]) * classes
        )
        right += int((total.reshape(-1, classes).argmax(axis=1) == codes[some]).sum())
    return right / len(rows)


CONTENDERS: dict[str, Callable[[Path, int], float]] = {
    "ours": ours,
    "ours, graph": ours_graph,
    "scikit-learn": sklearn_brute,
}


def child(name: str, folder: Path, k: int) -> None:
    """One run: prints its facts."""
    import retrieval.query  # noqa: F401

    if name == "scikit-learn":
        import sklearn.neighbors  # noqa: F401
    started = time.perf_counter()
    accuracy = CONTENDERS[name](folder, k)
    seconds = time.perf_counter() - started
    # Not what getrusage() says, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "accuracy": accuracy}))


def run(name: str, folder: Path, k: int) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.knn", "--child", name, str(folder), "--k", str(k)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(n: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders, in turns."""
    rows, codes = clouds(n, options.dim, options.classes)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "codes.npy", codes)
    fill(folder / "collection", rows, codes)
    del rows, codes
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, some in runs.items():
            some.append(run(name, folder, options.k))
            print(f"  {name}: {some[-1]}", flush=True)
    facts: dict[str, Any] = {"cores": settings.cores(), "load": os.getloadavg()[0]}
    for name, some in runs.items():
        middle = {key: statistics.median(one[key] for one in some) for key in some[0]}
        facts[name] = {key: round(value, 4) for key, value in middle.items()}
    assert abs(facts["ours, graph"]["accuracy"] - facts["scikit-learn"]["accuracy"]) < 1e-3
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), options.k)
        return
    for n in options.rows:
        name = f"{n} × {options.dim}, {options.classes} classes, k = {options.k}"
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix="knn-") as folder:
            found = compare(n, options, Path(folder))
        kept = json.loads(options.out.read_text()) if options.out.exists() else {}
        text = json.dumps(kept | {name: found}, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
