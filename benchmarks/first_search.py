"""What the first search after opening a large collection costs, in time and memory.

    python -m benchmarks.first_search [--rows 1000000] [--dim 512] [--kind ivf-rabitq]

Fresh processes, one after the other; imports are done before the clock starts. `open` is
`retrieval.open`, `first` the first search for ten whole records, `second` another one. Memory is
that of the process, with mapped files (`resident`) and without (`private`), above what it had after
the imports. The files are in the system's cache, as they were written just before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.search_task import SPACE, Task
from retrieval import settings

RESULTS = Path(__file__).parent / "results" / "first_search.json"
CHILD = """
import json, sys, time
import numpy as np, pyarrow, lance, faiss, psutil
import retrieval, retrieval.query
def memory():
    facts = psutil.Process().memory_full_info()
    return np.array([facts.rss, facts.uss]) / 1e6
before = memory()
query = np.random.default_rng(int(sys.argv[2])).standard_normal(int(sys.argv[3]))
times = [time.perf_counter()]
collection = retrieval.open(sys.argv[1])
times.append(time.perf_counter())
for number in range(2):
    assert len(collection.search(vector=query, space="space")) == 10
    times.append(time.perf_counter())
print(json.dumps({"ms": (1000 * np.diff(times)).tolist(), "mb": (memory() - before).tolist()}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kind", default="ivf-rabitq")
    parser.add_argument("--vectors", default="clusters", choices=["clusters", "photos"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--processes", type=int, default=7)
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        task = Task(options, Path(folder))
        facts = task.collection.build_index(SPACE, options.kind)
        for seed in range(options.processes):
            arguments = [task.collection.uri, str(seed), str(options.dim)]
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *arguments], capture_output=True, check=True
            )
            runs.append(json.loads(done.stdout))
    names = {"open_ms": ("ms", 0), "first_ms": ("ms", 1), "second_ms": ("ms", 2)}
    names |= {"resident_mb": ("mb", 0), "private_mb": ("mb", 1)}
    found: dict[str, Any] = {
        name: round(statistics.median(run[kind][at] for run in runs), 1)
        for name, (kind, at) in names.items()
    }
    found |= {"cores": settings.cores(), "measured": facts["measured"]}
    print(json.dumps(found, indent=1))
    name = f"{options.kind}, {options.vectors} {options.rows} × {options.dim}"
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, name: found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
