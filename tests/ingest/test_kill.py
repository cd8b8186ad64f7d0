"""Killed with SIGKILL at random moments, an ingest ends where one clean run ends."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import retrieval
from tests.pictures import picture, write_pictures
from tests.stored import columns_of

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10


def start(folder: Path, collection: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.ingest.child", str(folder), str(collection)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    return child


def finish(folder: Path, collection: Path) -> None:
    child = start(folder, collection)
    child.communicate(timeout=300)
    assert child.returncode == 0


def change(folder: Path) -> None:
    """Everything that can happen to a folder between two runs."""
    write_pictures(folder / "new", 150, start=1000)
    (folder / "away").mkdir()
    for number in range(8):
        os.rename(folder / f"{number:04d}.png", folder / "away" / f"m{number:04d}.png")
    for number in range(8, 14):
        picture(2000 + number, (60, 44)).save(folder / f"{number:04d}.png")
    for number in range(14, 17):
        shutil.copy(folder / f"{number:04d}.png", folder / "new" / f"copy{number}.png")
    for number in range(17, 20):
        (folder / f"{number:04d}.png").unlink()
    for number in range(3):
        whole = (folder / "new" / f"{1000 + number}.png").read_bytes()
        (folder / "new" / f"{1000 + number}.png").write_bytes(whole[: len(whole) // 2])


def state(collection: Path) -> tuple[dict[str, dict], list[dict]]:
    store = retrieval.open(collection).store
    rows = store.rows(store.ids(), columns_of(store)).to_pylist()
    failures = [
        {key: row[key] for key in row if key != "failed_at"} for row in store.failures().to_pylist()
    ]
    return {row["uri"]: row for row in rows}, sorted(failures, key=lambda row: row["uri"])


def test_ten_kills_and_one_clean_run_end_in_the_same_state(tmp_path):
    folder, clean, killed = tmp_path / "photos", tmp_path / "clean.lance", tmp_path / "killed.lance"
    write_pictures(folder, 30)
    finish(folder, clean)
    shutil.copytree(clean, killed)
    change(folder)
    finish(folder, clean)

    moments = random.Random(os.getpid())
    for _ in range(KILLS):
        child = start(folder, killed)
        time.sleep(moments.uniform(0, 0.6))
        child.kill()
        child.communicate()
        retrieval.open(killed).self_test()
    finish(folder, killed)

    (rows, failures), (other_rows, other_failures) = state(clean), state(killed)
    assert failures == other_failures and len(failures) == 3
    assert rows.keys() == other_rows.keys() and len(rows) == 30 + 150 - 3 + 3 - 3
    for uri, row in rows.items():
        other = other_rows[uri]
        for column in row:
            if column.startswith("vector_"):
                np.testing.assert_allclose(row[column], other[column], atol=1e-5)
            else:
                assert row[column] == other[column], (uri, column)
    assert retrieval.open(killed).self_test(sample=10_000)[1] == []
