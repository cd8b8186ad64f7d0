"""Pairs on disk: whole or not there, never trusted when damaged, gone when they must be."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrieval import folders
from retrieval.query import Collection
from retrieval.query.duplicates import pair_files, pairs
from retrieval.query.duplicates.comparer import UNSEEN
from retrieval.query.duplicates.kept import UNKNOWN
from retrieval.query.duplicates.pair_files import PairFiles
from retrieval.query.duplicates.pairs import find_pairs
from retrieval.store import Store
from tests.query.pairs_child import (
    DOT,
    SMALL,
    SPACE,
    check,
    filled,
    hash_of,
    new,
    put,
    truth,
    unit,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def impatient(monkeypatch):
    """Keep what was found at every occasion."""
    for name, value in (("_SAVE_EVERY_S", 0.0), ("_SAVE_SHARE", 0.0), ("_LOOKS", 40)):
        monkeypatch.setattr(pairs, name, value)


class Made:
    """A collection of which the pairs are known, and kept."""

    def __init__(self, place: Path) -> None:
        self.place, self.images = place, filled(place)

    def find(self, threshold: float = 0.9, tell=None) -> pairs.Pairs:
        collection = Collection(Store.open(self.place))
        found = find_pairs(collection, SPACE, threshold, memory_bytes=SMALL, tell=tell)
        check(found, truth(self.images), threshold)
        return found

    def files(self) -> PairFiles:
        return PairFiles(Store.open(self.place), SPACE)

    def states(self) -> list[Path]:
        return self.files()._there()


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "c")


def test_what_is_kept_is_what_was_found(made):
    assert made.files().load() == []
    found = made.find()
    (kept,) = made.files().load()
    assert kept.whole and kept.threshold == 0.9 and len(kept.a) == len(found)
    assert sorted(kept.scores.tolist()) == sorted(found.scores.tolist())
    assert sorted(kept.whys.tolist()) == sorted(found.whys)
    assert len(made.states()) == 1
    made.find(0.95)
    assert made.files().load()[0].threshold == 0.9, "a higher threshold asks for no other state"
    made.find(0.85)
    (kept,) = made.files().load()
    assert kept.threshold == 0.85 and len(made.states()) == 1


def test_a_pair_that_could_not_be_looked_at_is_looked_at_again(tmp_path):
    vector = unit(0, 1)[0]
    images = {i: (hash_of(i), vector) for i in range(3)}
    put(new(tmp_path / "c"), images, thumbnail=[DOT, DOT, None])

    def whys() -> list[str]:
        return find_pairs(Collection(Store.open(tmp_path / "c")), SPACE, 0.9).whys

    assert whys() == ["re-encoded", UNSEEN, UNSEEN]
    files = PairFiles(Store.open(tmp_path / "c"), SPACE)
    (kept,) = files.load()
    assert sorted(zip(kept.tiers.tolist(), kept.whys, strict=True))[:2] == [(UNKNOWN, "")] * 2
    before = files._there()
    assert whys()[1:] == [UNSEEN, UNSEEN] and files._there() == before, "nothing new is known"
    Store.open(tmp_path / "c").update(pa.table({"image_id": [2], "thumbnail": [DOT]}))
    assert whys() == ["re-encoded"] * 3
    assert UNKNOWN not in files.load()[0].tiers


SLOW = [pytest.param(step, marks=pytest.mark.slow) for step in (0, 1, 2, 4, 5, 6, 14, 20)]


@pytest.mark.parametrize("step", [3, 9, *SLOW])
def test_a_run_that_is_killed_goes_on_where_it_stopped(made, step, impatient):
    command = [sys.executable, "-m", "tests.query.pairs_child", str(made.place), str(step)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    states = made.files().load()
    assert len(states) <= 1 and bool(states) == (step > 3), "four steps write one state"
    began = []
    made.find(tell=lambda done, total: began.append(done))
    if states:
        # The first thing done comes after all that was done already.
        assert began[0] > len(states[0].keys) > 0
    (kept,) = made.files().load()
    assert kept.whole


def test_a_finished_state_stays_until_another_is_finished(made, impatient):
    made.find()

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 200:
            raise Stop

    with pytest.raises(Stop):
        made.find(0.85, tell=stop)
    states = made.files().load()
    assert [(kept.threshold, kept.whole) for kept in states] == [(0.85, False), (0.9, True)]
    began = []
    made.find(0.9, tell=lambda *now: began.append(now))
    assert not began, "nothing is left to do"
    made.find(0.85)
    assert len(made.states()) == 1


def damaged_bytes(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    places = np.unique(np.linspace(0, len(raw) - 1, 12).astype(int))
    flipped = [raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :] for at in places]
    return [*flipped, raw[: len(raw) // 2], raw[:-2], raw + b"x", b""]


@pytest.mark.parametrize("name", ["contents.arrow", "pairs.arrow", "pairs.json"])
def test_what_is_damaged_is_not_trusted(made, name, caplog):
    made.find()
    (folder,) = made.states()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for damage in damaged_bytes(folder / name):
        folder.mkdir(exist_ok=True)
        for each, raw in whole.items():
            (folder / each).write_bytes(raw)
        assert len(made.files().load()) == 1
        (folder / name).write_bytes(damage)
        caplog.clear()
        assert made.files().load() == [] and "damaged" in caplog.text
        assert not folder.exists()
    for each, raw in whole.items():
        folder.mkdir(exist_ok=True)
        (folder / each).write_bytes(raw)
    (folder / name).unlink()
    assert made.files().load() == []
    made.find()
    assert len(made.files().load()) == 1


def test_what_another_method_or_collection_left_is_not_used(made, monkeypatch):
    made.find()
    monkeypatch.setattr(pair_files, "METHOD", pair_files.METHOD + 1)
    assert made.files().load() == []
    made.find()
    assert len(made.files().load()) == 1 and len(made.states()) == 1
    monkeypatch.setattr(Store, "collection_id", "another")
    assert made.files().load() == []


def test_indexes_come_and_go_beside_pairs(made, impatient):
    made.find()
    collection = Collection(Store.open(made.place))
    for _ in range(2):
        collection.build_index(SPACE, "exact")
    began = []
    made.find(tell=lambda *now: began.append(now))
    assert not began and len(made.states()) == 1
    put(Store.open(made.place), fresh := {900: (hash_of(900), unit(9, 1)[0])})
    made.images |= fresh
    collection.update_indexes()
    made.find()
    assert len(collection.indexes(SPACE)) == 1


def traces(place: Path, content: str) -> list[Path]:
    """Files in which the bytes of a content hash are, or its text."""
    known = bytes.fromhex(content), content.encode()
    files = [path for path in place.rglob("*") if path.is_file()]
    return [path for path in files if any(each in path.read_bytes() for each in known)]


def test_a_purge_leaves_nothing(made):
    made.find()
    gone = hash_of(3)
    assert any(".pairs" in path.parts for path in traces(made.place, gone))
    Collection(Store.open(made.place)).delete([3], purge=True)
    assert traces(made.place, gone) == []
    assert not [path for path in made.place.rglob("*") if ".pairs" in path.parts]
    del made.images[3]
    made.find()
    assert traces(made.place, gone) == []


@pytest.mark.parametrize("at", [0, 1, 3, 7])
def test_a_purge_during_a_run_is_not_undone(made, impatient, at):
    steps = []

    def purge(done: int, total: int) -> None:
        if len(steps) == at:
            Collection(Store.open(made.place)).delete([3], purge=True)
        steps.append(done)

    collection = Collection(Store.open(made.place))
    find_pairs(collection, SPACE, 0.9, memory_bytes=SMALL, tell=purge)
    assert len(steps) > at and traces(made.place, hash_of(3)) == []
    del made.images[3]
    made.find()
    assert len(made.files().load()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_where_nothing_can_be_written_pairs_are_found_all_the_same(
    made, impatient, monkeypatch, caplog, number
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "fsync", fail)
        made.find()
    assert caplog.text.count("pairs cannot be kept") == 1
    assert ("make room there" in caplog.text) == (number == errno.ENOSPC)
    assert made.states() == []
    caplog.clear()
    (made.place / "indexes" / f"vector_{SPACE}").mkdir(parents=True, exist_ok=True)
    hidden = made.files()._place
    hidden.rmdir()
    hidden.write_text("in the way")
    made.find()
    assert caplog.text.count("pairs cannot be kept") == 1


def test_several_runs_at_once_leave_a_whole_state(made, impatient):
    failed = []

    def run(threshold: float) -> None:
        try:
            made.find(threshold)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(t,)) for t in (0.9, 0.9, 0.8, 0.95)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert made.files().load()
    made.find(0.8)
    assert [kept.threshold for kept in made.files().load()] == [0.8]


def test_pairs_of_a_bucket_are_kept_in_the_cache(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    filled(tmp_path / "c", 60)
    place = "s3://bucket/pairs"
    local = Store.open(tmp_path / "c")
    store = Store.create(place, list(local.spaces.values()), storage_options=bucket)
    images = {i: (hash_of(i), v) for i, v in enumerate(unit(0, 60))}
    put(store, images)
    collection = Collection(store)
    check(find_pairs(collection, SPACE, 0.9), truth(images), 0.9)
    kept = [path for path in (tmp_path / "cache").rglob("pairs.arrow") if ".pairs" in path.parts]
    assert len(kept) == 1
    collection.delete([0], purge=True)
    assert not list((tmp_path / "cache").rglob("pairs.arrow"))
