"""The peers of `search.py`: numpy, raw FAISS, hnswlib, usearch, LanceDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.search_data import Vectors
from benchmarks.search_task import Contender, K, Task
from retrieval import settings


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
