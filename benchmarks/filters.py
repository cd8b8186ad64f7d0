"""What a filter costs at any selectivity, in recall and time, beside the two simple ways.

    python -m benchmarks.filters [--rows 100000] [--dim 384] [--kind ivf-rabitq]

Twelve shares of allowed rows from 0.001 % to 100 %, of four sorts: at random; `near` and `far`, the
rows nearest to and farthest from each query; and `slab`, rows on one side of a plane that has
nothing to do with the queries. `ours` is the planner, `pre` compares every allowed row, `post` asks
the index for 1,000 and drops what is not allowed. Times are medians of single queries, without the
evaluation of the filter expression, in turns; recall@10 is of the true ten among the allowed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_task import SPACE, Task
from retrieval import settings
from retrieval.query.view import View
from retrieval.vectors import nearest
from retrieval.vectors.rescore import rescore

RESULTS = Path(__file__).parent / "results" / "filters.json"
SHARES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.7, 1.0)
K, QUERIES, POST = 10, 20, 1000
Ids = NDArray[np.int64]


def allowed_rows(task: Task, sort: str, share: float, query: NDArray[np.float32]) -> Ids:
    """Sorted ids of the rows that a filter of this sort lets through."""
    count = max(1, round(share * task.n))
    if sort == "random":
        values = np.random.default_rng(5).random(task.n)
    elif sort == "slab":
        values = task.rows @ np.random.default_rng(6).standard_normal(task.dim).astype(np.float32)
    else:
        values = task.rows @ query if sort == "far" else -(task.rows @ query)
    return np.sort(np.argpartition(values, count - 1)[:count]).astype(np.int64)


def ways(view: View) -> dict[str, Callable[[NDArray[np.float32], Ids], Any]]:
    opened = view.base
    assert opened is not None

    def before(query: NDArray[np.float32], allowed: Ids) -> Any:
        places = opened.positions_of(allowed)
        pieces = (places[at : at + 8192] for at in range(0, len(places), 8192))
        blocks = ((opened.ids[some], opened.rows.take(some)) for some in pieces)
        return nearest(blocks, query, K).ids

    def after(query: NDArray[np.float32], allowed: Ids) -> Any:
        found = opened.index.candidates(query, POST // opened.effort.factor, opened.effort)
        mask = np.zeros(len(opened.ids) + 1, dtype=bool)
        mask[opened.positions_of(allowed)] = True
        best = rescore(opened.rows, query, np.where(mask[found], found, -1), K)[0]
        return np.where(best >= 0, opened.ids[best], -1)

    return {
        "ours": lambda query, allowed: view.search(query, K, allowed).ids,
        "pre": before,
        "post": after,
    }


def sweep(task: Task, view: View, sort: str, share: float) -> dict[str, Any]:
    """Recall and time of every way at one share."""
    runs = ways(view)
    times: dict[str, list[float]] = {name: [] for name in runs}
    hits: dict[str, list[float]] = {name: [] for name in runs}
    for query in task.queries[:QUERIES]:
        allowed = allowed_rows(task, sort, share, query)
        scores = task.rows[allowed] @ query
        k = min(K, len(allowed))
        last = -np.partition(-scores, k - 1)[k - 1]
        for name, run in runs.items():
            started = time.perf_counter()
            found = np.asarray(run(query[None], allowed))[0]
            times[name].append(1000 * (time.perf_counter() - started))
            found = found[found >= 0]
            hits[name].append(min(k, int((task.rows[found] @ query >= last - 1e-6).sum())) / k)
    return {
        name: {
            "recall_at_10": round(float(np.mean(hits[name])), 4),
            "p50_ms": round(statistics.median(times[name]), 3),
        }
        for name in runs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--kind", default="ivf-rabitq")
    parser.add_argument("--vectors", default="clusters", choices=["clusters", "photos"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": settings.cores()}
    with tempfile.TemporaryDirectory(prefix="filters-") as folder:
        task = Task(options, Path(folder))
        task.collection.build_index(SPACE, options.kind)
        view = task.collection._searcher.views.at_version(SPACE)
        for sort in ("random", "slab", "near", "far"):
            for share in SHARES:
                at = found.setdefault(sort, {})[f"{share:.3%}"] = sweep(task, view, sort, share)
                print(sort, f"{share:.3%}", at, flush=True)
    name = f"{options.kind}, {options.vectors} {options.rows} × {options.dim}"
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, name: found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
