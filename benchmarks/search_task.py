"""What the contenders of `search.py` are given, and what they are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.search_data import Vectors, clusters, photos
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.types import Space

TARGET, K = 0.98, 10
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
