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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.search_data import Vectors, clusters, photos
from retrieval import settings
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.types import Space
from retrieval.vectors.faiss_install import threads
from retrieval.vectors.kinds import backend
from retrieval.vectors.rescore import rescore

os.environ.setdefault("LANCE_LOG", "error")
RESULTS = Path(__file__).parent / "results" / "search.json"
TARGET, K = 0.98, 10
OURS = ("exact", "rabitq", "ivf-rabitq", "ivf-flat", "ivf-sq8", "ivf-pq", "hnsw", "torch")
SPACE = "space"
Search = Callable[[Vectors], Any]


@dataclass
class Contender:
    """One way to search, as tuned.

    Attributes:
        one: a query ``[1, dim]`` to its answer.
        ids: queries ``[q, dim]`` to positions ``[q, 10]``.
        build_s: seconds to build it.
        bytes_per_vector: that it keeps in memory, or maps.
        says: its parameters.
    """

    one: Search
    ids: Search
    build_s: float = 0.0
    bytes_per_vector: float = 0.0
    says: str = ""


class Task:
    """The vectors, the queries, the truth, and a collection that holds them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        """Make everything; ``folder`` holds the collection."""
        self.folder = folder
        self.n, self.dim = options.rows, options.dim
        make = {
            "clusters": lambda n, seed: clusters(n, self.dim, seed),
            "photos": lambda n, seed: photos(n, self.dim, seed, options.data),
        }[options.vectors]
        self.rows = make(self.n, 0)
        self.tuning, self.queries = make(300, 1), make(1000, 2)
        self.truth = {id(q): self._truth(q) for q in (self.tuning, self.queries)}
        self.collection = self._filled()

    def recall(self, queries: Vectors, found: Any) -> float:
        """By scores, so that of equal rows any is as good as the other."""
        found = np.asarray(found, dtype=np.int64)
        scores = np.einsum("qkd,qd->qk", self.rows[np.maximum(found, 0)], queries)
        scores[found < 0] = -np.inf
        return float((scores >= self.truth[id(queries)][:, None] - 1e-6).mean())

    def tuned(self, ids: Callable[[Vectors, Any], Any], efforts: Sequence[Any]) -> Any:
        """The first effort that reaches the target."""
        for effort in efforts:
            if self.recall(self.tuning, ids(self.tuning, effort)) >= TARGET:
                return effort
        return efforts[-1]

    def table(self, at: int, count: int, column: str) -> pa.Table:
        """Rows of a catalogue, with the vectors from ``at`` on."""
        ids = np.arange(at, at + count)
        flat = pa.array(self.rows[at : at + count].ravel())
        return pa.table(
            {
                "image_id": ids,
                "uri": [f"/data/photos/{i:08d}.jpg" for i in ids],
                "content_hash": [f"{i:032x}" for i in ids],
                "width": pa.array([640] * count, pa.int32()),
                "height": pa.array([480] * count, pa.int32()),
                "format": ["JPEG"] * count,
                "size_bytes": ids + 100_000,
                "label": [f"class {i % 100}" for i in ids],
                "split": ["train" if i % 10 else "test" for i in ids],
                column: pa.FixedSizeListArray.from_arrays(flat, self.dim),
            }
        )

    def _truth(self, queries: Vectors) -> Vectors:
        """Score of the tenth nearest."""
        best = np.full((len(queries), K), -np.inf, np.float32)
        for at in range(0, self.n, 50_000):
            some = queries @ self.rows[at : at + 50_000].T
            best = np.sort(np.hstack([best, some]), axis=1)[:, -K:]
        return best[:, 0]

    def _filled(self) -> Collection:
        identity = ("benchmark", "w" * 32, "p" * 32, "cls")
        store = Store.create(
            str(self.folder / "ours"), [Space(SPACE, *identity, self.dim, ("image",))]
        )
        for at in range(0, self.n, 50_000):
            rows = self.table(at, min(50_000, self.n - at), store.vector_column(SPACE))
            flags = pa.array([True] * len(rows))
            store.upsert(rows.append_column(f"embedded_{SPACE}", flags))
        store.optimize()
        return Collection(store)


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


def faiss_raw(task: Task) -> Iterator[tuple[str, Callable[[], dict[str, Contender]]]]:
    """FAISS as its own documentation would have it, refining from vectors in memory."""
    import faiss

    nlist = max(1, min(int(4 * task.n**0.5), task.n // 39))
    probes = [2**i for i in range(12) if 2**i <= nlist]
    recipes: dict[str, tuple[str, list[tuple[int, int]]]] = {
        "Flat": ("Flat", [(0, 1)]),
        "HNSW32": ("HNSW32", [(ef, 1) for ef in (16, 32, 64, 128, 256, 512)]),
        "IVF-Flat": (f"IVF{nlist},Flat", [(p, 1) for p in probes]),
        "IVF-RaBitQ + refine": (
            f"IVF{nlist},RaBitQ,Refine(Flat)",
            [(p, f) for p in probes for f in (10, 20)],
        ),
        "RaBitQ fast-scan + refine": ("RaBitQfs,Refine(Flat)", [(0, f) for f in (5, 10, 20, 40)]),
        "IVF-PQ fast-scan + refine": (
            f"IVF{nlist},PQ{task.dim // 2}x4fs,Refine(Flat)",
            [(p, f) for p in probes for f in (5, 20)],
        ),
    }

    def parameters(name: str, index: Any, effort: tuple[int, int]) -> Any:
        amount, factor = effort
        inner = None
        if name == "HNSW32":
            return faiss.SearchParametersHNSW(efSearch=amount)
        if amount:
            inner = faiss.SearchParametersIVF(nprobe=amount)
        if "refine" not in name:
            return inner
        both = faiss.IndexRefineSearchParameters(k_factor=factor)
        if inner is not None:
            both.base_index_params = inner
        both._inner = inner  # keeps it alive
        return both

    def make(name: str) -> dict[str, Contender]:
        recipe, efforts = recipes[name]
        started = time.perf_counter()
        index = faiss.index_factory(task.dim, recipe, faiss.METRIC_INNER_PRODUCT)
        index.train(task.rows[:: max(1, task.n // (64 * nlist))])
        index.add(task.rows)
        seconds = time.perf_counter() - started

        def ids(queries: Vectors, effort: tuple[int, int]) -> Any:
            return index.search(queries, K, params=parameters(name, index, effort))[1]

        effort = task.tuned(ids, efforts)
        known = parameters(name, index, effort)

        def search(queries: Vectors) -> Any:
            return index.search(queries, K, params=known)[1]

        size = 4 * task.dim if name == "Flat" else faiss.serialize_index(index).nbytes / task.n
        says = f"probes {effort[0]}, factor {effort[1]}"
        return {f"FAISS {name}": Contender(search, search, seconds, size, says)}

    for name in recipes:
        yield f"FAISS {name}", lambda name=name: make(name)


def graphs(task: Task) -> Iterator[tuple[str, Callable[[], dict[str, Contender]]]]:
    """The graphs of hnswlib and usearch."""

    def hnswlib_() -> dict[str, Contender]:
        import hnswlib

        started = time.perf_counter()
        index = hnswlib.Index(space="ip", dim=task.dim)
        index.init_index(max_elements=task.n, M=32, ef_construction=100)
        index.add_items(task.rows, num_threads=settings.cores())
        seconds = time.perf_counter() - started

        def ids(queries: Vectors, ef: int) -> Any:
            index.set_ef(ef)
            return index.knn_query(queries, K, num_threads=settings.cores())[0]

        ef = task.tuned(ids, (16, 32, 64, 128, 256, 512))
        index.set_ef(ef)

        def search(queries: Vectors) -> Any:
            return index.knn_query(queries, K, num_threads=min(len(queries), settings.cores()))[0]

        size = index.index_file_size() / task.n
        return {"hnswlib M32": Contender(search, search, seconds, size, f"ef {ef}")}

    def usearch_() -> dict[str, Contender]:
        from usearch.index import Index

        started = time.perf_counter()
        index = Index(ndim=task.dim, metric="ip", dtype="bf16", connectivity=32, expansion_add=100)
        index.add(np.arange(task.n), task.rows, threads=settings.cores())
        seconds = time.perf_counter() - started

        def ids(queries: Vectors, ef: int) -> Any:
            index.expansion_search = ef
            found = index.search(queries, K, threads=settings.cores()).keys
            return found.reshape(len(queries), K).astype(np.int64)

        ef = task.tuned(ids, (16, 32, 64, 128, 256, 512))
        index.expansion_search = ef

        def search(queries: Vectors) -> Any:
            found = index.search(queries, K, threads=min(len(queries), settings.cores())).keys
            return found.reshape(len(queries), K).astype(np.int64)

        size = index.serialized_length / task.n
        return {"usearch bf16 M32": Contender(search, search, seconds, size, f"ef {ef}")}

    yield "hnswlib", hnswlib_
    yield "usearch", usearch_


def lancedb_own(task: Task) -> Iterator[tuple[str, Callable[[], dict[str, Contender]]]]:
    """LanceDB's own indexes, through its Python client; answers are ten whole records."""

    def make(kind: str) -> dict[str, Contender]:
        import lancedb
        from lancedb.index import IvfPq, IvfRq

        place = task.folder / f"lancedb-{kind}"
        table = lancedb.connect(str(place)).create_table("t", task.table(0, task.n, "vector"))
        started = time.perf_counter()
        config = IvfRq if kind == "IVF_RQ" else IvfPq
        table.create_index("vector", config=config(distance_type="cosine"))
        seconds = time.perf_counter() - started
        columns = [*(name for name in table.schema.names if name != "vector"), "_distance"]

        def found(query: Vectors, effort: tuple[int, int]) -> pa.Table:
            asked = table.search(query).distance_type("cosine").nprobes(effort[0])
            return asked.refine_factor(effort[1]).select(columns).limit(K).to_arrow()

        def ids(queries: Vectors, effort: tuple[int, int]) -> Any:
            return np.stack([found(q, effort)["image_id"].to_numpy() for q in queries])

        efforts = [(p, f) for p in (5, 10, 40, 160, 320) for f in (5, 20, 50)]
        effort = task.tuned(ids, efforts)
        size = sum(p.stat().st_size for p in place.rglob("_indices/*/*")) / task.n
        says = f"nprobes {effort[0]}, refine_factor {effort[1]}"
        one = Contender(
            lambda q: found(q[0], effort), lambda q: ids(q, effort), seconds, size, says
        )
        return {f"LanceDB {kind}, ten records": one}

    for kind in ("IVF_RQ", "IVF_PQ"):
        yield f"LanceDB {kind}", lambda kind=kind: make(kind)


def limit(task: Task) -> Iterator[tuple[str, Callable[[], dict[str, Contender]]]]:
    """The product with every vector in numpy, and the best ten of it."""

    def search(queries: Vectors) -> Any:
        scores = queries @ task.rows.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        return np.take_along_axis(best, order, 1)

    def matmul(queries: Vectors) -> Any:
        return queries @ task.rows.T

    def ids(queries: Vectors) -> Any:
        return np.concatenate([search(queries[at : at + 50]) for at in range(0, len(queries), 50)])

    size = 4.0 * task.dim
    yield (
        "numpy",
        lambda: {
            "numpy matmul alone": Contender(matmul, ids, 0, size),
            "numpy matmul + top 10": Contender(search, ids, 0, size),
        },
    )


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
