"""Several processes on one collection: complete answers for the version they name, and kills."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from retrieval import folders
from retrieval.errors import VersionGone
from retrieval.query import Collection, indexing, views
from retrieval.query.indexing import Indexes
from retrieval.store import Store
from retrieval.vectors import faiss_cpu
from retrieval.vectors.base import Effort
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import backend
from tests.query.fresh_child import NEAR, SPACE, new, rows, unit

ROOT = Path(__file__).resolve().parents[2]
KIND = "rabitq" if backend("rabitq").missing() is None else "exact"
QUERIES = unit(1000, 5)


@pytest.fixture(autouse=True)
def exhaustive(monkeypatch):
    monkeypatch.setattr(OpenIndex, "effort", Effort(4096, 4096))  # so that answers are exact
    monkeypatch.setattr(indexing, "_FOLD_SHARE", 0.0)
    monkeypatch.setattr(indexing, "_FOLD_ROWS", 6)
    monkeypatch.setattr(faiss_cpu, "_TOO_FEW_TO_GROW", 10)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.query.fresh_child", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def made(place: Path) -> Path:
    """A collection with an index, and some rows beside it."""
    store = new(place)
    far = unit(1, 400)
    far = far[np.abs(far @ NEAR) < 0.8]
    store.upsert(rows(range(150), far[:150]))
    Collection(store).build_index(SPACE, KIND)
    store.upsert(rows(range(140, 160), far[150:170]))
    return place


def right(place: Path) -> Collection:
    """Open it, and compare what it answers with all vectors of the table."""
    collection = Collection(Store.open(place))
    blocks = list(Store.open(place).vectors(SPACE))
    ids = np.concatenate([ids for ids, _ in blocks])
    scores = QUERIES @ np.concatenate([vectors for _, vectors in blocks]).T
    best = np.argsort(-scores, axis=1)[:, :10]
    found = collection.neighbors(QUERIES, SPACE, k=10)
    assert np.array_equal(found.ids, ids[best])
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, best, 1), atol=1e-5)
    return collection


def search_while_another_writes(place: Path, rounds: int) -> None:
    writer = start("write", place, rounds)
    lines: list[str] = []
    listener = threading.Thread(target=lambda: lines.extend(writer.stdout))
    listener.start()
    collection, answers, bases = Collection(Store.open(place)), [], set()
    while writer.poll() is None:
        hits = collection.search(vector=NEAR, space=SPACE, k=2000)
        answers.append((hits.version, {hit.image.image_id for hit in hits if hit.score > 0.9}))
        bases |= {facts["version"] for facts in collection.indexes(SPACE)}
    listener.join()
    writer.stdout.close()
    for thread in threading.enumerate():
        if thread.name == "index-update":
            thread.join()
    assert writer.returncode == 0
    near = {version: set(ids) for version, ids in map(json.loads, lines)}
    for version, found in answers:
        assert found == near[max(known for known in near if known <= version)]
    assert len({version for version, _ in answers}) > 5, "it saw the collection change"
    assert len(bases) > 2, "and stood on several indexes"
    right(place)


def test_answers_are_complete_for_their_version_while_another_process_writes(tmp_path):
    search_while_another_writes(made(tmp_path / "c"), 16)


def test_the_searching_process_may_update_the_index_too(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "_TAIL_ROWS", 7)
    search_while_another_writes(made(tmp_path / "c"), 16)


@pytest.mark.slow
def test_answers_are_complete_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "_TAIL_ROWS", 7)
    search_while_another_writes(made(tmp_path / "c"), 320)


def test_many_rows_beside_an_index_are_taken_in_behind_the_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "_TAIL_ROWS", 15)
    collection = Collection(Store.open(made(tmp_path / "c")))
    assert collection.indexes(SPACE)[0]["behind"] == 30  # 20 new vectors, 10 of them of old rows
    for thread in [t for t in threading.enumerate() if t.name == "index-update"]:
        thread.join()
    (facts,) = collection.indexes(SPACE)
    assert facts["rows"] == 170 and facts["behind"] == 10, "what is dead stays until a rebuild"
    right(tmp_path / "c")


def test_an_update_that_cannot_be_written_is_not_tried_at_every_search(tmp_path, monkeypatch):
    place, tried = made(tmp_path / "c"), []
    monkeypatch.setattr(views, "_TAIL_ROWS", 15)

    class Refused(threading.Thread):
        def start(self):
            tried.append(self.name)
            super().start()

    monkeypatch.setattr(threading, "Thread", Refused)
    monkeypatch.setattr(Path, "rename", refuse)
    collection = Collection(Store.open(place))
    for _ in range(5):
        collection.neighbors(QUERIES, SPACE, k=10)
        for thread in [t for t in threading.enumerate() if t.name == "index-update"]:
            thread.join()
    assert tried == ["index-update"]


def test_a_builder_that_waited_for_a_purge_makes_its_folder_again(tmp_path):
    place = made(tmp_path / "c")
    collection = Collection(Store.open(place))
    there = Indexes(collection.store).folder(SPACE)
    with folders.turn(there):
        builder = threading.Thread(target=collection.build_index, args=(SPACE, KIND))
        builder.start()
        time.sleep(0.3)  # it waits for its turn; were it slower, it would have nothing to survive
        shutil.rmtree(there)
    builder.join()
    (facts,) = right(place).indexes(SPACE)
    assert facts["behind"] == 0


def test_whatever_stops_an_update_behind_the_scenes_stops_nothing_else(
    tmp_path, monkeypatch, caplog
):
    place = made(tmp_path / "c")
    monkeypatch.setattr(views, "_TAIL_ROWS", 15)
    monkeypatch.setattr("shutil.disk_usage", lost)
    collection = Collection(Store.open(place))
    collection.neighbors(QUERIES, SPACE, k=10)
    for thread in [t for t in threading.enumerate() if t.name == "index-update"]:
        thread.join()
    assert "the index of s stays as it is: the disk is gone" in caplog.text
    right(place)


def lost(path):
    raise OSError("the disk is gone")


def refuse(self, target):
    raise PermissionError(f"{self} may only be read")


def killed_in(places: list[Path], step: str) -> None:
    """Kill one process at each of the first moves that show something; the rest is as it was."""
    children = [start("die", place, KIND, step, n) for n, place in enumerate(places)]
    for child in children:
        child.communicate(timeout=120)
    killed = [child.returncode for child in children]
    assert killed[:2] == [-9, -9], "a part, and the index itself"
    for place in places[:2]:
        assert list((place / "indexes").rglob(".*.part")), "the killed process left something"
    for place in places:
        collection = right(place)
        collection.build_index(SPACE, KIND)
        (facts,) = right(place).indexes(SPACE)
        assert facts["behind"] == 0 and facts["kind"] == KIND


@pytest.mark.parametrize("step", ["build", "update"])
def test_a_process_killed_before_a_move_leaves_an_index_that_is_right(tmp_path, step, monkeypatch):
    made(tmp_path / "0")
    places = [tmp_path / str(n) for n in range(4)]
    for place in places[1:]:
        shutil.copytree(places[0], place)
    killed_in(places, step)
    monkeypatch.setattr("retrieval.folders.STALE_AFTER_S", -1.0)
    for place in places:
        right(place).build_index(SPACE, KIND)
        assert not list((place / "indexes").rglob(".*.part"))
        assert len(list((place / "indexes").glob("*/*"))) == 2, "one index and one part"


def killed_at_any_time(place: Path, times: int) -> None:
    chance = random.Random(5)
    for _ in range(times):
        child = start("index", place, KIND)
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.4))
        child.kill()
        child.communicate(timeout=60)
        right(place)
    right(place).build_index(SPACE, KIND)
    assert right(place).indexes(SPACE)[0]["behind"] == 0


def test_a_process_killed_at_any_time_leaves_an_index_that_is_right(tmp_path):
    killed_at_any_time(made(tmp_path / "c"), 3)


@pytest.mark.slow
def test_processes_killed_many_times_leave_an_index_that_is_right(tmp_path):
    killed_at_any_time(made(tmp_path / "c"), 40)


def test_a_search_goes_on_where_another_process_purges_meanwhile(tmp_path, monkeypatch):
    collection = right(made(tmp_path / "c"))
    before = collection.store.again()
    found, purged = collection._searcher._found, []

    def overtaken(*asked):
        answer = found(*asked)
        if not purged:  # between the neighbours and their records
            other = Collection(Store.open(collection.uri))
            purged.append(other.delete([int(answer[0].ids[0, 0])], purge=True))
        return answer

    monkeypatch.setattr(collection._searcher, "_found", overtaken)
    hits = collection.search(vector=unit(7, 1)[0], space=SPACE, k=5)
    assert purged == [1]
    right_now = right(tmp_path / "c").search(vector=unit(7, 1)[0], space=SPACE, k=5)
    assert [hit.image for hit in hits] == [hit.image for hit in right_now]
    with pytest.raises(VersionGone, match="open the collection again"):
        before.rows(before.ids(), ["uri"])
