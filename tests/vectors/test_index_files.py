"""Damage of any byte, file or folder of an index costs time, never an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import VectorIndexError
from retrieval.query import Collection, indexing
from retrieval.query.indexing import Indexes
from retrieval.store import Store
from retrieval.vectors import index_files, tune, vector_file
from retrieval.vectors.base import Effort
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import backend
from tests.query.fresh_child import SPACE, new, rows, unit

KINDS = [kind for kind in ("exact", "hnsw", "rabitq") if backend(kind).missing() is None]
QUERIES = unit(1000, 4)


class Made:
    """A collection whose indexes are put back before every damage."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind
        store = new(place)
        store.upsert(rows(range(120), unit(1, 120)))
        Collection(store).build_index(SPACE, kind)
        store.upsert(rows(range(110, 200), unit(2, 90)))
        store.delete(range(5))
        assert Collection(store).update_indexes()
        store.upsert(rows([300], unit(3, 1)))
        self.truth = Collection(store).neighbors(QUERIES, SPACE, k=10, index="exact")
        self.indexes = place / "indexes"
        self.folder = Indexes(store).newest(SPACE, kind).folder
        shutil.copytree(self.indexes, place.with_name("whole"))
        other = new(place.with_name("other"))
        other.upsert(rows(range(195), unit(7, 195)))
        Collection(other).build_index(SPACE, kind)
        self.other = Indexes(other).newest(SPACE, kind)

    def files(self) -> list[Path]:
        """Of the index and of its parts."""
        return sorted(p for p in self.folder.parent.rglob("*") if p.is_file())

    def restore(self) -> None:
        shutil.rmtree(self.indexes)
        shutil.copytree(self.place.with_name("whole"), self.indexes)

    def open(self) -> Collection:
        return Collection(Store.open(self.place))

    def same_answers(self, collection: Collection, index: str | None = None) -> None:
        found = collection.neighbors(QUERIES, SPACE, k=10, index=index)
        assert np.array_equal(found.ids, self.truth.ids)
        np.testing.assert_allclose(found.scores, self.truth.scores, rtol=0, atol=1e-6)

    def survives(self, collection: Collection, *, rebuild: bool) -> None:
        """Answers are the same, and a good index can be had again."""
        self.same_answers(collection)
        self.same_answers(collection)
        collection.indexes(SPACE)
        collection.update_indexes()
        self.same_answers(collection)
        if rebuild:
            collection.build_index(SPACE, self.kind)
            self.same_answers(collection, self.kind)
            again = self.open()
            self.same_answers(again, self.kind)
            (facts,) = again.indexes(SPACE)
            assert facts["kind"] == self.kind and facts["behind"] == 0


@pytest.fixture(
    scope="module",
    params=[KINDS[-1], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:-1])],
)
def made(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_file, "_BLOCK_BYTES", 1024)  # several blocks in a small file
        patch.setattr(indexing, "_FOLD_ROWS", 20)
        patch.setattr(tune, "_TIMED", 1)
        patch.setattr(OpenIndex, "effort", Effort(4096, 4096))  # so that answers are exact
        yield Made(tmp_path_factory.mktemp("damage") / "c", request.param)


def damages(size: int, offsets: int) -> list[tuple[str, int]]:
    spread = np.unique(np.linspace(0, size - 1, offsets).astype(int)).tolist()
    lengths = sorted({0, 1, size // 2, size - 1})
    return [("flip", at) for at in spread] + [("cut", at) for at in lengths] + [("more", 0)]


def damage(file: Path, how: str, at: int) -> None:
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[at] ^= 1 << (at % 8)
    file.write_bytes(data[:at] if how == "cut" else data + b"\0" if how == "more" else data)


def hurt_everywhere(made: Made, offsets: int, every: int) -> None:
    tried = 0
    made.restore()
    names = [file.relative_to(made.indexes) for file in made.files()]
    assert {Path(name).name for name in names} >= {"index.json", "ids.bin", "vectors.bin"}
    for name in names:
        for how, at in damages((made.place.with_name("whole") / name).stat().st_size, offsets):
            made.restore()
            damage(made.indexes / name, how, at)
            made.survives(made.open(), rebuild=tried % every == 0)
            tried += 1
    assert tried > len(names) * offsets / 2


def test_bytes_that_changed_and_files_cut_short_change_no_answer(made):
    hurt_everywhere(made, offsets=4, every=12)


@pytest.mark.slow
def test_bytes_that_changed_and_files_cut_short_change_no_answer_anywhere(made):
    hurt_everywhere(made, offsets=60, every=1)


def test_files_that_are_gone_or_of_another_index_change_no_answer(made):
    made.restore()
    for file in made.files():
        name = file.relative_to(made.indexes)
        made.restore()
        (made.indexes / name).unlink()
        made.survives(made.open(), rebuild=True)
        twin = next(made.other.folder.parent.rglob(file.name))
        made.restore()
        shutil.copyfile(twin, made.indexes / name)
        made.survives(made.open(), rebuild=True)
    made.restore()
    for name in [folder.name for folder in made.folder.parent.iterdir()]:
        made.restore()
        shutil.rmtree(made.folder.parent / name)
        made.survives(made.open(), rebuild=True)


def test_a_whole_folder_of_another_collection_is_not_used(made):
    made.restore()
    shutil.rmtree(made.indexes)
    shutil.copytree(made.other.folder.parent.parent, made.indexes)
    made.survives(made.open(), rebuild=True)
    names = [p.name for p in made.folder.parent.glob(f"{made.kind}-*")]
    assert len(names) == 1, "it is swept by the first build"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b'{"kind": 3}', b"\xff", b"[" * 99])
def test_notes_that_are_no_notes_change_no_answer(made, text):
    for note in ("index.json", "part.json"):
        made.restore()
        next(made.folder.parent.rglob(note)).write_bytes(text)
        made.survives(made.open(), rebuild=True)


def test_notes_that_were_edited_are_not_believed(made):
    made.restore()
    note = made.folder / "index.json"
    for name, value in {"version": 1, "kind": "nonsense", "rows": 3, "effort": [0, 0]}.items():
        made.restore()
        note.write_text(json.dumps(json.loads(note.read_bytes()) | {name: value}))
        made.survives(made.open(), rebuild=True)


def test_an_index_that_was_damaged_is_built_again_by_an_update(made):
    for name in ("index.json", "ids.bin"):
        made.restore()
        damage(made.folder / name, "flip", 9)
        assert made.open().update_indexes()
        assert [facts["kind"] for facts in made.open().indexes(SPACE)] == [made.kind]
        made.same_answers(made.open(), made.kind)


def test_vectors_that_rot_while_they_are_searched_change_no_answer(made):
    """Blocks are checked when they are first used: here after the index was opened."""
    for where in (0, 2000, -1):
        made.restore()
        collection = made.open()
        only = collection.neighbors(unit(3, 1), SPACE, k=1, where="image_id = 300").ids
        assert only.tolist() == [[300]]
        for vectors in made.folder.parent.rglob("vectors.bin"):
            with vectors.open("r+b") as file:
                file.seek(where, 2 if where < 0 else 0)
                file.write(b"\x55")
        made.survives(collection, rebuild=where == 0)


def test_rotten_vectors_are_noticed_where_rows_are_compared_and_taken_over(made, tmp_path):
    for step in ("compare", "fold", "build"):
        made.restore()
        place = tmp_path / step
        shutil.copytree(made.place, place)
        for vectors in place.rglob("vectors.bin"):
            damage(vectors, "flip", 40 if step == "fold" else 4000)
        collection = Collection(Store.open(place))
        writer = Store.open(place)
        if step == "compare":  # the same vectors, other columns
            ids = writer.ids()
            writer.update(rows(ids, None, "new").select(["image_id", "label"]))
        elif step == "fold":
            writer.upsert(rows(range(400, 440), -QUERIES[[0] * 40]))
            assert collection.update_indexes()
            (facts,) = collection.indexes(SPACE)
            assert facts["rows"] == 195 + 1 + 40 and facts["behind"] == 0
            assert len(facts["parts"]) == 1, "made anew"
        else:
            collection.build_index(SPACE, made.kind)
            collection.build_index(SPACE, "exact")
        made.same_answers(collection)
        made.same_answers(Collection(Store.open(place)))


def test_what_cannot_be_thrown_away_is_not_used_all_the_same(made, monkeypatch):
    """As in a folder that may only be read."""
    for name in ("vectors.bin", "index.json", "ids.bin"):
        made.restore()
        for file in made.folder.parent.rglob(name):
            damage(file, "flip", 17)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            collection = made.open()
            for _ in range(3):
                made.same_answers(collection)
            made.same_answers(collection, "exact")
            with pytest.raises(VectorIndexError):
                collection.build_index(SPACE, made.kind)
            made.same_answers(collection)
        assert made.folder.exists()


def refuse(self, target):
    raise PermissionError(f"{self} may only be read")


def test_what_killed_processes_left_is_swept_later(made, monkeypatch):
    made.restore()
    there = made.folder.parent
    for name in (".0123.part", "part-0123"):
        (there / name).mkdir()
        (there / name / "vectors.bin").write_bytes(b"half of it")
    made.open().build_index(SPACE, made.kind)
    assert not (there / "part-0123").exists(), "a part that no index names"
    assert (there / ".0123.part").exists(), "somebody may be writing it"
    monkeypatch.setattr("retrieval.folders.STALE_AFTER_S", -1.0)
    made.open().build_index(SPACE, made.kind)
    assert not (there / ".0123.part").exists()


def is_index(folder: Path) -> bool:
    return not folder.name.startswith("part-")


def test_parts_go_after_the_indexes_that_use_them(made, monkeypatch):
    made.restore()
    there, whole = made.folder.parent, []
    real, listed = index_files.discard, Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), key=is_index))

    def seen(folder: Path) -> None:
        real(folder)
        for _, facts in index_files.published(there):
            whole.append(all((there / part["name"]).exists() for part in facts["parts"]))

    monkeypatch.setattr(index_files, "discard", seen)
    index_files.sweep(there, [])
    assert all(whole) and not [p for p in listed(there) if not p.name.startswith(".")]


def test_purging_leaves_nothing_of_an_index_nor_of_one_that_was_never_finished(made, tmp_path):
    made.restore()
    shutil.copytree(made.place, tmp_path / "c")
    there = tmp_path / "c" / "indexes" / made.folder.parent.name
    (there / ".0123.part").mkdir()
    (there / ".0123.part" / "vectors.bin").write_bytes(b"half of it")
    Collection(Store.open(tmp_path / "c")).delete([7], purge=True)
    assert not [p for p in (tmp_path / "c" / "indexes").rglob("*") if not p.name.endswith(".lock")]


ORDERS = [  # what notes say: kind, version, rows, low, latency_ms; the first is the best
    [("b", 5, 1000, 0.99, 1.0), ("a", 5, 1000, 0.99, 2.0)],
    [("a", 5, 1000, 0.99, 2.0), ("b", 5, 1000, 0.71, 1.0)],  # missed its target
    [("b", 5, 1000, 0.71, 1.0), ("a", 5, 1000, 0.90, 2.0)],  # both did
    [("a", 4, 990, 0.99, 1.0), ("b", 5, 1000, 1.0, 9.0)],  # hardly behind
    [("b", 5, 1000, 1.0, 9.0), ("a", 4, 990, 0.97, 1.0)],
    [("b", 5, 1000, 1.0, 9.0), ("a", 4, 700, 0.99, 1.0)],  # the other rows have to be scanned
    [("a", 4, 1200, 0.99, 1.0), ("b", 5, 1000, 1.0, 9.0)],  # what is dead costs little
    [("a", 5, 1000, 0.9, 9.0), ("a", 4, 1000, 0.99, 1.0)],  # replaced
]


@pytest.mark.parametrize("notes", ORDERS)
def test_the_best_reached_its_target_is_hardly_behind_and_fast(tmp_path, notes):
    there = []
    for kind, version, n, low, latency_ms in notes:
        there.append(tmp_path / f"{kind}-{version:012d}-0123")
        there[-1].mkdir()
        measured = {"low": low, "target": 0.98, "latency_ms": latency_ms}
        text = json.dumps({"rows": n, "measured": measured})
        (there[-1] / "index.json").write_text(text)
    assert index_files._best_first(index_files._candidates(tmp_path, None)) == there


def test_the_fastest_of_those_that_are_as_good_is_taken(made):
    made.restore()
    collection = made.open()
    for kind in KINDS:
        collection.build_index(SPACE, kind)
    facts = {one["kind"]: one for one in collection.indexes(SPACE)}
    assert set(facts) == set(KINDS)
    fastest = min(facts.values(), key=lambda one: one["measured"]["latency_ms"])
    owner, version = fastest["owner"], collection.version
    newest = index_files.newest(made.folder.parent, owner, version, None)
    assert newest is not None and newest.kind == fastest["kind"]
    assert index_files.newest(made.folder.parent, owner, version - 1, None) is None
    assert index_files.newest(made.folder.parent, [*owner[:-1], "other"], version, None) is None
