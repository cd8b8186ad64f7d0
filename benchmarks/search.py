"""How fast and how good every index is, beside raw FAISS, LanceDB, hnswlib, usearch and numpy.

    python -m benchmarks.search [--rows 100000] [--dim 384] [--vectors clusters|photos]
                                [--data DIR] [--only NAME…] [--rounds 3]

Every contender gets the same vectors and is tuned, on queries of its own, to the least effort whose
recall@10 reaches 0.98; then all answer the same other queries, one at a time and all at once, in
turns. `search` of ours is vector in, ten whole records out; `neighbors` is vector in, ten ids and
exact scores out, the check for a newer version included; LanceDB is used through its Python client
as its documentation says, and returns the same columns. `matmul` is numpy's product with every
vector, the limit that memory sets. `candidates` of ours, ids included, is set beside FAISS called
on the same file with the same effort. Peers that are not installed (`pip install hnswlib usearch
lancedb`) are left out, by name.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_LOG", "error")

from benchmarks.search_data import Vectors
from benchmarks.search_peers import faiss_raw, graphs, lancedb_own, limit
from benchmarks.search_task import SPACE, Contender, K, Search, Task
from retrieval import settings
from retrieval.vectors.faiss_install import threads
from retrieval.vectors.kinds import backend
from retrieval.vectors.rescore import rescore

RESULTS = Path(__file__).parent / "results" / "search.json"
OURS = ("exact", "rabitq", "ivf-rabitq", "ivf-flat", "ivf-sq8", "ivf-pq", "hnsw", "torch")


def ours(task: Task) -> Iterator[tuple[str, Callable[[], dict[str, Contender]]]]:
    """Every kind of ours, each with the steps of its answer apart."""

    def make(kind: str) -> dict[str, Contender]:
        collection = task.collection
        started = time.perf_counter()
        facts = collection.build_index(SPACE, kind)
        seconds = time.perf_counter() - started
        opened = collection._searcher.views.at_version(SPACE, kind).base
        index, rows = opened.index, opened.rows

        def found(queries: Vectors, effort: Any) -> Any:
            some = index.candidates(queries, K, effort)
            return opened.ids[rescore(rows, queries, some, K)[0]]

        effort = task.tuned(found, index.efforts)
        object.__setattr__(opened, "facts", {**facts, "effort": [effort.probes, effort.factor]})
        facts = {
            "build_s": facts["measured"]["build_s"],
            "bytes_per_vector": facts["measured"]["bytes_per_vector"],
            "says": f"probes {effort.probes}, factor {effort.factor}; {seconds:.0f} s with tuning",
        }

        def neighbors(queries: Vectors) -> Any:
            return collection.neighbors(queries, SPACE, k=K, index=kind).ids

        def search(query: Vectors) -> Any:
            return collection.search(vector=query[0], space=SPACE, k=K, index=kind)

        def candidates(queries: Vectors) -> Any:
            return opened.ids[index.candidates(queries, K, effort)]

        def whole(queries: Vectors) -> Any:
            return found(queries, effort)

        return {
            **same_file(index, opened.folder, kind, effort, whole),
            f"ours {kind}, candidates": Contender(candidates, whole),
            f"ours {kind}, index": Contender(whole, whole, **facts),
            f"ours {kind}, neighbors": Contender(neighbors, neighbors),
            f"ours {kind}, search": Contender(search, neighbors),
        }

    for kind in OURS:
        if (why := backend(kind).missing()) is None:
            yield f"ours {kind}", lambda kind=kind: make(kind)
        else:
            print(f"  {kind}: {why}")


def same_file(
    index: Any, folder: Path, kind: str, effort: Any, whole: Search
) -> dict[str, Contender]:
    """FAISS called directly on the file of ours, for as many candidates with the same effort."""
    if not (folder / "index.faiss").exists():
        return {}
    import faiss

    raw = faiss.read_index(str(folder / "index.faiss"))
    known, wanted = index._parameters(effort.probes), K * effort.factor

    def search(queries: Vectors) -> Any:
        with threads(faiss, 1 if len(queries) == 1 else settings.cores()):
            return raw.search(queries, wanted, params=known)[1]

    return {f"FAISS on the file of ours {kind}": Contender(search, whole)}


def race(task: Task, some: dict[str, Contender], rounds: int) -> dict[str, dict[str, Any]]:
    """Latencies of single queries in turns, throughput of all queries at once, recall."""
    times: dict[str, list[float]] = {name: [] for name in some}
    batch: dict[str, list[float]] = {name: [] for name in some}
    for turn in range(rounds + 1):
        for name, contender in some.items():
            slow = task.n >= 500_000 and (name.startswith("numpy") or "exact" in name)
            few = task.queries[turn :: 50 if slow else 5]
            for query in few:
                started = time.perf_counter()
                contender.one(query[None])
                if turn:  # the first round warms up
                    times[name].append(1000 * (time.perf_counter() - started))
            if turn and contender.ids is contender.one:
                started = time.perf_counter()
                contender.ids(task.queries)
                batch[name].append(len(task.queries) / (time.perf_counter() - started))
    out = {}
    for name, contender in some.items():
        ordered = sorted(times[name])
        out[name] = {
            "p50_ms": round(statistics.median(ordered), 3),
            "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
            "batch_queries_per_s": round(statistics.median(batch[name])) if batch[name] else None,
            "recall_at_10": round(task.recall(task.queries, contender.ids(task.queries)), 4),
            "build_s": round(contender.build_s, 1),
            "bytes_per_vector": round(contender.bytes_per_vector, 1),
            "says": contender.says,
        }
        print(f"  {name:38} {out[name]}", flush=True)
    return out


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All contenders; those of a group are alive together and take turns."""
    task = Task(options, folder)
    makers = dict(
        pair
        for group in (limit, ours, faiss_raw, graphs, lancedb_own)
        for pair in group(task)
        if not options.only or any(word in pair[0] for word in options.only)
    )
    # Those that are compared with each other closely are raced together.
    groups = [
        ["numpy", "FAISS Flat", "ours exact", "ours torch"],
        ["FAISS IVF-RaBitQ + refine", "ours ivf-rabitq", "LanceDB IVF_RQ", "LanceDB IVF_PQ"],
        ["FAISS RaBitQ fast-scan + refine", "ours rabitq"],
        ["FAISS IVF-Flat", "ours ivf-flat", "ours ivf-sq8"],
        ["FAISS HNSW32", "ours hnsw", "hnswlib", "usearch"],
        ["FAISS IVF-PQ fast-scan + refine", "ours ivf-pq"],
    ]
    found: dict[str, Any] = {}
    for group in groups:
        some: dict[str, Contender] = {}
        for name in group:
            if name in makers:
                print(f"{name}: building", flush=True)
                try:
                    some |= makers[name]()
                except ImportError as error:
                    print(f"  left out: {error}")
        found |= race(task, some, options.rounds)
        some.clear()
        gc.collect()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--vectors", choices=["clusters", "photos"], default="clusters")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    name = f"{options.vectors} {options.rows} × {options.dim}"
    print(name)
    folder = Path(tempfile.mkdtemp(prefix="search-"))
    try:
        found = {"cores": settings.cores(), "load": os.getloadavg()[0]}
        found["contenders"] = compare(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.only:  # a part of the table
        found["contenders"] = kept.get(name, {}).get("contenders", {}) | found["contenders"]
    RESULTS.write_text(json.dumps({**kept, name: found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
