"""Several processes at once, and processes that are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from retrieval.store import Store

WRITER = """
import sys
import numpy as np, pyarrow as pa
from retrieval.store import Store

uri, name, batches, size, step, spaces = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
store = Store.open(uri)
print("ready", flush=True)
sys.stdin.readline()
for batch in range(batches):
    ids = np.arange(batch * step, batch * step + size)
    vectors = np.full(size * 8, batch, np.float32)
    store.upsert(pa.table({
        "image_id": ids,
        "uri": [f"/{name}/{i}" for i in ids],
        "label": [f"{name}{batch}"] * size,
        "thumbnail": [bytes([batch % 256]) * 2000] * size,
        "vector_visual": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 8),
    }))
    if spaces and batch == batches // 2:
        store.add_columns(pa.schema([("rating", pa.int64())]))
    print(batch, flush=True)
"""


def start(store: Store, name: str, batches: int, size: int, step: int, spaces: int = 0):
    arguments = [store.uri, name, *map(str, (batches, size, step, spaces))]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_two_processes_upsert_overlapping_ids(store: Store):
    batches, size, step = 12, 60, 30
    writers = [start(store, name, batches, size, step, 1) for name in "ab"]
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        assert out.split() == [str(batch) for batch in range(batches)]
    assert store.refresh()
    ids = store.known()["image_id"].to_numpy()
    assert sorted(ids) == list(range((batches - 1) * step + size))
    assert "rating" in store.columns().names
    table = store.rows(ids, ["label", "vector_visual", "uri"])
    for row in table.to_pylist():
        assert set(row["vector_visual"]) == {float(row["label"][1:])}, "a row is of one batch"
        assert row["uri"].split("/")[1] == row["label"][0]


def test_killed_writers_leave_whole_batches(store: Store):
    size, chance = 200, random.Random(7)
    for run in range(5):
        writer = start(store, f"w{run}-", 100_000, size, size)
        writer.stdin.write("\n")
        writer.stdin.flush()
        time.sleep(chance.uniform(0.02, 0.3))
        writer.kill()
        out, _ = writer.communicate(timeout=60)
        acknowledged = [int(word) for word in out.split()]
        survivor = Store.open(store.uri)
        labels = survivor.known().append_column(
            "label", survivor.rows(survivor.known()["image_id"], ["label"])["label"]
        )
        counts = labels.group_by("label").aggregate([("image_id", "count")]).to_pylist()
        mine = {
            r["label"]: r["image_id_count"] for r in counts if r["label"].startswith(f"w{run}-")
        }
        assert set(mine.values()) <= {size}, "no torn batch"
        assert {f"w{run}-{batch}" for batch in acknowledged} <= set(mine), "none lost"
        assert len(mine) <= len(acknowledged) + 1
    survivor.upsert(survivor.rows(survivor.ids(), ["image_id", "uri", "label"]))
    survivor.purge()
    assert list(survivor.ids()) == list(range(len(survivor.ids())))


def test_threads_read_while_one_writes(store: Store, rows):
    store.upsert(rows(range(100)))
    stop, errors, truth = threading.Event(), [], store.vectors_of("visual", range(50))

    def read():
        while not stop.is_set():
            try:
                store.refresh()
                assert [r.image_id for r in store.records([7, 3])] == [7, 3]
                assert np.array_equal(store.vectors_of("visual", range(50)), truth)
            except Exception as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start_id in range(100, 600, 50):
        store.upsert(rows(range(start_id, start_id + 50)))
        store.delete([start_id])
        store.optimize()
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_writers_that_never_win_are_told(store: Store, monkeypatch):
    from lance.commit import CommitConflictError

    from retrieval.errors import CollectionError

    def always_late(dataset):
        raise CommitConflictError("preempted")

    monkeypatch.setattr("retrieval.store.table._PAUSE_S", 0.0)
    with pytest.raises(CollectionError, match="other writers"):
        store._images.commit(always_late)
