"""All pairs above a cosine: how long, in how much memory, beside FAISS and a plain product.

    python -m benchmarks.all_pairs [--rows 100000 1000000] [--dim 384] [--threshold 0.95]
                                   [--rounds 3] [--only NAME…]

Clusters, of whose rows one in fifty has a near copy, half of them just below the threshold. `ours`
is `find_pairs` on a collection in LanceDB, with reading it, collapsing equal bytes and writing down
what was found; it has no thumbnails, so that no pictures are compared. `ours, light` is the same
without torch. `ours, again` finds the pairs of a collection to which one row in a hundred was added
since. `join` is the product alone, on an array. `FAISS` is `IndexFlatIP.range_search` of all rows,
`numpy` a product in blocks above the diagonal. Each run is a process of its own; they take turns.
Seconds are from the first call to the last pair, after the imports, and CPU seconds those of all
threads, which tell more where others use the machine; memory is the most that the process ever
held, imports and mapped files included.

Peers are measured up to 100,000 rows, and beyond that extrapolated by the square of the rows. Up to
50,000 rows every contender's pairs are compared with numpy's; those within 1e-5 of the threshold
may be either. Beyond 200,000 rows the collection has an index, and `ours, approximate` searches it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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

from benchmarks.search_data import Vectors, clusters
from retrieval import settings

RESULTS = Path(__file__).parent / "results" / "all_pairs.json"
SPACE = "space"
_BLOCK = 4096
_CHECKED, _PEERS, _INDEXED = 50_000, 100_000, 200_000
_TIE = 1e-5
Found = tuple[Any, Any, Any]


def copies(n: int, dim: int, threshold: float) -> Vectors:
    """Clusters in which near copies are planted: n / 100 above the threshold and as many below."""
    rows, rng = clusters(n, dim, 0), np.random.default_rng(1)
    some = rng.permutation(n)[: 4 * (n // 100)].reshape(2, -1)
    away = rng.standard_normal(rows[some[0]].shape)
    away -= (away * rows[some[0]]).sum(axis=1, keepdims=True) * rows[some[0]]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    low = np.where(np.arange(len(away)) % 2, threshold, 2 * threshold - 1)
    cosine = rng.uniform(low, low + 1 - threshold)[:, None]
    rows[some[1]] = cosine * rows[some[0]] + np.sqrt(1 - cosine**2) * away
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def fill(place: Path, rows: Vectors, start: int, stop: int) -> None:
    """Put rows into a collection, which is made if there is none."""
    import pyarrow as pa

    from retrieval.store import Store
    from retrieval.types import Space

    made = ("benchmark", "w" * 32, "p" * 32, "cls")
    if not place.exists():
        Store.create(place, [Space(SPACE, *made, rows.shape[1], ("image",))])
    store = Store.open(place)
    for at in range(start, stop, 50_000):
        some = rows[at : min(at + 50_000, stop)]
        ids = np.arange(at, at + len(some))
        columns = {
            "image_id": ids,
            "uri": [f"/data/photos/{i:08d}.jpg" for i in ids],
            "content_hash": [f"{i:032x}" for i in ids],
            store.vector_column(SPACE): pa.FixedSizeListArray.from_arrays(
                pa.array(some.ravel()), rows.shape[1]
            ),
            f"embedded_{SPACE}": pa.array([True] * len(some)),
        }
        store.upsert(pa.table(columns))


def ours(folder: Path, threshold: float, *, approximate: bool = False) -> tuple[Found, Any]:
    from retrieval.query import Collection
    from retrieval.query.duplicates.pairs import find_pairs
    from retrieval.store import Store

    collection = Collection(Store.open(folder / "collection"))
    found = find_pairs(collection, SPACE, threshold, approximate=approximate)
    return (found.a, found.b, found.scores), found.recall


def join(folder: Path, threshold: float) -> tuple[Found, Any]:
    from retrieval.vectors.join import pairs_above

    class Rows:
        matrix = np.load(folder / "rows.npy", mmap_mode="r")
        shape = matrix.shape

        def blocks(self, size: int, start: int = 0) -> Any:
            for at in range(start, len(self.matrix), size):
                yield self.matrix[at : at + size]

    return together(list(pairs_above(Rows(), threshold))), None


def faiss_range(folder: Path, threshold: float) -> tuple[Found, Any]:
    import faiss

    rows = np.load(folder / "rows.npy")
    faiss.omp_set_num_threads(settings.cores())
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    offsets, scores, other = index.range_search(rows, threshold)
    one = np.repeat(np.arange(len(rows)), np.diff(offsets.astype(np.int64)))
    kept = one < other
    return (one[kept], other[kept], scores[kept]), None


def numpy_blocks(folder: Path, threshold: float) -> tuple[Found, Any]:
    rows, found = np.load(folder / "rows.npy"), []
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        for at in range(0, first + _BLOCK, _BLOCK):
            scores = rows[at : at + _BLOCK] @ block.T
            a, b = np.nonzero(scores >= threshold)
            kept = a + at < b + first
            found.append(((a + at)[kept], (b + first)[kept], scores[a, b][kept]))
    return together(found), None


def together(found: list[Found]) -> Found:
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


CONTENDERS: dict[str, Callable[..., tuple[Found, Any]]] = {
    "ours": ours,
    "ours, light": ours,
    "ours, again": ours,
    "ours, approximate": lambda folder, threshold: ours(folder, threshold, approximate=True),
    "join": join,
    "join, light": join,
    "FAISS": faiss_range,
    "numpy": numpy_blocks,
}
PEERS = ("FAISS", "numpy")


def child(name: str, folder: Path, threshold: float) -> None:
    """One run: prints its facts and leaves its pairs in the folder."""
    from importlib.util import find_spec

    from retrieval.query.duplicates import pairs
    from retrieval.vectors.products import Full

    if "light" in name:
        pairs.join.fastest = lambda work: Full()
    elif name not in PEERS and find_spec("torch"):
        import torch  # noqa: F401
    started, worked = time.perf_counter(), time.process_time()
    (a, b, scores), recall = CONTENDERS[name](folder, threshold)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    facts = {"seconds": seconds, "cpu_seconds": worked, "pairs": len(a)}
    # Not what getrusage() says, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    facts["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    if recall is not None:
        facts["recall"] = [recall.share, recall.low, recall.high, recall.checked]
    np.savez(folder / "found.npz", a=a, b=b, scores=scores)
    print(json.dumps(facts))


def run(name: str, folder: Path, threshold: float) -> tuple[dict[str, Any], set[tuple[int, int]]]:
    """One run in a process of its own, and the pairs that are surely above the threshold."""
    if name in ("ours", "ours, light"):
        for kept in (folder / "collection").rglob(".pairs"):
            shutil.rmtree(kept)
    command = [sys.executable, "-m", "benchmarks.all_pairs", "--child", name, str(folder)]
    command += ["--threshold", str(threshold)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = np.load(folder / "found.npz")
    sure = found["scores"] >= threshold + _TIE
    pairs = set(zip(found["a"][sure].tolist(), found["b"][sure].tolist(), strict=True))
    return json.loads(done.stdout.splitlines()[-1]), pairs


def compare(n: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders on ``n`` rows, in turns; the last hundredth comes late for `again`."""
    rows, threshold = copies(n, options.dim, options.threshold), options.threshold
    np.save(folder / "rows.npy", rows)
    late = n - n // 100
    fill(folder / "collection", rows, 0, late)
    names = [name for name in CONTENDERS if not options.only or name in options.only]
    names = [name for name in names if n <= _PEERS or name not in PEERS]
    facts: dict[str, Any] = {"cores": settings.cores(), "load": os.getloadavg()[0]}
    if n > _INDEXED:
        facts["index"] = index(folder)
    else:
        names = [name for name in names if name != "ours, approximate"]
    if again := "ours, again" in names:
        names.remove("ours, again")
        run("ours", folder, threshold)
    fill(folder / "collection", rows, late, n)
    del rows
    if again:
        facts["ours, again"], _ = run("ours, again", folder, threshold)
        print(f"  ours, again: {facts['ours, again']}", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    pairs = {}
    for _ in range(options.rounds):
        for name in names:
            found, pairs[name] = run(name, folder, threshold)
            runs[name].append(found)
            print(f"  {name}: {found}", flush=True)
    for name, some in runs.items():
        middle = {
            key: statistics.median(one[key] for one in some)
            for key in ("seconds", "cpu_seconds", "peak_mb")
        }
        facts[name] = some[-1] | {key: round(value, 2) for key, value in middle.items()}
    if n <= _CHECKED and "numpy" in pairs:
        facts["equal_pairs"] = all(same == pairs["numpy"] for same in pairs.values())
        assert facts["equal_pairs"], {name: len(some) for name, some in pairs.items()}
    if {"ours", "ours, approximate"} <= pairs.keys():
        both = pairs["ours"] & pairs["ours, approximate"]
        facts["ours, approximate"]["true_recall"] = len(both) / max(1, len(pairs["ours"]))
    return facts


def index(folder: Path) -> dict[str, Any]:
    """Build the index that is due for so many rows."""
    from retrieval.query import Collection
    from retrieval.store import Store

    started = time.perf_counter()
    facts = Collection(Store.open(folder / "collection")).build_index(SPACE)
    return {"kind": facts["kind"], "seconds": round(time.perf_counter() - started, 1)}


def ratios(
    found: dict[str, Any], n: int, kept: dict[str, Any], dim: int, what: str
) -> dict[str, float]:
    """How many times the time of each of ours its peers take, as measured or by the square."""
    measured = {
        name: facts[name][what] * (n / rows) ** 2
        for name in PEERS
        for rows, facts in ((n, found), (_PEERS, kept.get(f"{_PEERS} × {dim}", {})))[::-1]
        if name in facts
    }
    return {
        f"{peer} / {name}": round(seconds / found[name][what], 2)
        for peer, seconds in measured.items()
        for name in CONTENDERS
        if name in found and name not in PEERS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), options.threshold)
        return
    for n in options.rows:
        name = f"{n} × {options.dim}"
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix="pairs-") as folder:
            found = compare(n, options, Path(folder))
        kept = json.loads(options.out.read_text()) if options.out.exists() else {}
        for what in ("seconds", "cpu_seconds"):
            found[f"ratio of {what}"] = ratios(found, n, kept, options.dim, what)
            print(what, json.dumps(found[f"ratio of {what}"], indent=1))
        text = json.dumps({**kept, name: kept.get(name, {}) | found}, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
