"""A small collection for tests of freshness, and the programs that other processes run on it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.query import Collection, indexing
from retrieval.store import Store
from retrieval.types import Space
from retrieval.vectors import faiss_cpu

SPACE, DIM = "s", 16


def new(place: Path, dtype: str = "float32") -> Store:
    """An empty collection with one space."""
    made = ("own", "w" * 32, "p" * 32, "cls")
    return Store.create(place, [Space(SPACE, *made, DIM, ("image",), dtype=dtype)])


def unit(seed: int, n: int) -> NDArray[np.float32]:
    """Unit rows that depend on the seed only."""
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def rows(ids: Sequence[int], vectors: Sequence | NDArray | None, label: str = "x") -> pa.Table:
    """Rows to upsert; a vector that is None is null, and so are all if ``vectors`` is None."""
    some = [None] * len(ids) if vectors is None else vectors
    lists = [None if v is None else np.asarray(v).tolist() for v in some]
    return pa.table(
        {
            "image_id": pa.array(list(ids), pa.int64()),
            "uri": [f"/{i}.jpg" for i in ids],
            "label": [label] * len(ids),
            "vector_s": pa.array(lists, pa.list_(pa.float32(), DIM)),
        }
    )


def vectors_only(ids: Sequence[int], vectors: Sequence | NDArray) -> pa.Table:
    """Rows to update: ids and vectors."""
    return rows(ids, vectors).select(["image_id", "vector_s"])


def shrink() -> None:
    """Let indexes fold, grow and be built anew at tens of rows."""
    indexing._FOLD_SHARE, indexing._FOLD_ROWS, indexing._MOST_PARTS = 0.0, 6, 3
    faiss_cpu._TOO_FEW_TO_GROW = 10


NEAR = unit(123, 1)[0]


def near(seed: int, n: int) -> NDArray[np.float32]:
    """Unit rows whose cosine with ``NEAR`` is above 0.9; of other rows it is below 0.8."""
    some = NEAR + 0.1 * unit(seed, n)
    return np.asarray(some / np.linalg.norm(some, axis=1, keepdims=True), dtype=np.float32)


def write(place: str, rounds: int) -> None:
    """Plant rows near ``NEAR``, move and delete them; say which are near at which version."""
    shrink()
    store = Store.open(place)
    living: dict[int, bool] = {}

    def say() -> None:
        found = [i for i, is_near in living.items() if is_near]
        print(json.dumps([Store.open(place).version, found]), flush=True)

    say()
    for turn in range(rounds):
        new_ids = list(range(1000 + 3 * turn, 1003 + 3 * turn))
        store.upsert(rows(new_ids, near(turn, 3)))
        living |= dict.fromkeys(new_ids, True)
        say()
        if turn >= 4:
            store.delete([new_ids[0] - 12])
            del living[new_ids[0] - 12]
            say()
            moved = [new_ids[1] - 12, new_ids[2] - 9]
            store.update(vectors_only(moved, -near(turn, 2)))
            living |= dict.fromkeys(moved, False)
            say()
            store.update(vectors_only(moved[:1], near(500 + turn, 1)))
            living[moved[0]] = True
            say()
        if turn % 4 == 3:
            store.update(rows(new_ids, None, "later").select(["image_id", "label"]))
            say()
            Collection(Store.open(place)).update_indexes()
        if turn % 10 == 9:
            store.optimize()
            say()


def index(place: str, kind: str) -> None:
    """Build, write and update without end."""
    shrink()
    collection, turn = Collection(Store.open(place)), 0
    print("ready", flush=True)
    while True:
        collection.build_index(SPACE, kind)
        collection.store.upsert(rows(range(turn % 500, turn % 500 + 10), unit(turn, 10)))
        collection.update_indexes()
        turn += 7


def die(place: str, kind: str, step: str, rename: int) -> None:
    """Kill this process instead of the n-th renaming of a folder."""
    shrink()
    real, seen = Path.rename, []

    def renamed(self: Path, target: Path) -> Path:
        if len(seen) == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(self)
        return real(self, target)

    Path.rename = renamed  # type: ignore[method-assign,assignment]
    collection = Collection(Store.open(place))
    _ = collection.build_index(SPACE, kind) if step == "build" else collection.update_indexes()


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if program == "write":
        write(arguments[0], int(arguments[1]))
    elif program == "index":
        index(*arguments[:2])
    else:
        die(*arguments[:3], int(arguments[3]))
