"""A removal plan carried out and undone: every byte comes back, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import retrieval
from indexers import ingest
from indexers.quarantine import apply, files, plan_schema, undo, write_plan
from indexers.sources import FolderSource
from retrieval.errors import PlanError
from retrieval.types import Space
from retrieval.uris import path_of, uri_of
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture
from tests.stored import columns_of

applying = sys.modules[apply.__module__]
undoing = sys.modules[undo.__module__]
ROOT = Path(__file__).resolve().parents[2]
KEPT = ["a/kept 0.png", "a/kept\n1.png", "kept2.png"]
GOING = [
    "a/plain.png",
    "a/b/with space.png",
    "a/b/line\nbreak.png",
    os.fsdecode(b"a/caf\xe9 \xff.png"),
    f"a/{'long' * 62}.png",
    "b/plain.png",
    "-dash.png",
]


class Place:
    """A folder of pictures, a collection of them, and a plan that takes most of them away."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.path = tmp_path / "photos", tmp_path / "plans" / "plan.parquet"
        for seed, name in enumerate([*KEPT, *GOING]):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(seed).save(os.fsencode(path), "PNG")
            os.utime(path, ns=(1, 1_600_000_000_123_456_789 + seed))
            os.chmod(path, 0o600 + seed % 8)
        os.link(self.folder / "b/plain.png", self.folder / "b/another name.png")
        self.collection = retrieval.open(
            tmp_path / "c.lance", create=True, encoders=[ColourEncoder()]
        )
        ingest(self.folder, self.collection)
        facts = {"price": 12.5, "label": "odd", "tags": ["a", "b"], "metadata": '{"make": "x"}'}
        self.collection.store.add_columns(pa.schema([("price", pa.float64())]))
        row = {"image_id": self.id(GOING[0]), **facts}
        self.collection.store.update(pa.Table.from_pylist([row]))
        self.quarantine = self.path.with_name("plan.parquet.quarantine")
        self.path.parent.mkdir()
        self.write(GOING)

    def uri(self, name: str) -> str:
        return uri_of(str(self.folder / name))

    def id(self, name: str) -> int:
        found = self.collection.store.find_uri(self.uri(name))
        assert found is not None
        return found

    def table(self, names: list[str], keep: list[str] = KEPT) -> pa.Table:
        rows = []
        for number, name in enumerate(names):
            record = self.collection.get(self.id(name))
            kept = keep[number % len(keep)]
            rows.append(
                {
                    "image_id": record.image_id,
                    "uri": record.uri,
                    "content_hash": record.content_hash,
                    "size_bytes": record.size_bytes,
                    "keep_id": self.id(kept),
                    "keep_uri": self.uri(kept),
                    "keep_hash": self.collection.get(self.id(kept)).content_hash,
                    "kind": "copy",
                    "score": 0.99,
                    "why": "re-encoded",
                    "collection": self.collection.uri,
                    "collection_id": self.collection.store.collection_id,
                }
            )
        return pa.Table.from_pylist(rows, plan_schema())

    def write(self, names: list[str], keep: list[str] = KEPT) -> None:
        write_plan(self.table(names, keep), self.path)

    def apply(self):
        return apply(self.path, self.collection)

    def undo(self):
        return undo(self.path, self.collection)

    def tree(self) -> dict[str, tuple[bytes, int, int]]:
        found = {}
        for root, folders, names in os.walk(self.folder):
            found |= {os.path.join(root, name): (b"", 0, 0) for name in folders}
            for name in names:
                path = os.path.join(root, name)
                facts = os.lstat(path)
                found[path] = (Path(path).read_bytes(), facts.st_mtime_ns, facts.st_mode)
        return found

    def rows(self) -> list[dict]:
        store = self.collection.store.again()
        columns = [*columns_of(store), "ingested_at"]
        return store.rows(store.ids(), columns).to_pylist()

    def answers(self) -> list[dict[int, float]]:
        ids = self.collection.store.again().ids().tolist()
        found = (self.collection.search(image_id=image_id, k=20) for image_id in ids)
        return [{hit.image.image_id: hit.score for hit in hits} for hits in found]

    def all(self):
        return self.tree(), self.rows(), self.answers()


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def same(now, before) -> bool:
    """Whether two :meth:`Place.all` agree; scores may differ in the last bit."""
    return now[:2] == before[:2] and now[2] == [
        pytest.approx(answer, abs=1e-5) for answer in before[2]
    ]


def without(before: dict, names: list[str], place: Place) -> dict:
    gone = {str(place.folder / name) for name in names}
    return {path: facts for path, facts in before.items() if path not in gone}


def test_what_goes_comes_back_as_it_was(place):
    tree, rows, answers = place.all()
    progress = []
    report = apply(place.path, place.collection, tell=lambda *n: progress.append(n))
    size = sum(len(tree[str(place.folder / name)][0]) for name in GOING)
    assert (report.moved, report.refused, report.bytes) == (len(GOING), [], size)
    assert progress == [(len(GOING), len(GOING))]
    assert place.tree() == without(tree, GOING, place)
    assert {row["uri"] for row in place.rows()} == {
        place.uri(name) for name in [*KEPT, "b/another name.png"]
    }
    hidden = sorted(path for path in place.quarantine.iterdir() if path.suffix == ".png")
    assert len(hidden) == len(GOING) and all(path.name[0].isdigit() for path in hidden)

    progress.clear()
    report = undo(place.path, place.collection, tell=lambda *n: progress.append(n))
    assert (report.restored, report.refused, report.bytes) == (len(GOING), [], size)
    assert progress[-1] == (len(GOING), len(GOING))
    assert same(place.all(), (tree, rows, answers))
    assert os.listdir(place.path.parent) == ["plan.parquet"]
    assert (place.folder / "b/plain.png").samefile(place.folder / "b/another name.png")
    assert ingest(place.folder, place.collection).skipped == len(rows)  # nothing looks changed


def test_twice_is_once(place):
    first = place.all()
    assert place.apply().moved == len(GOING)
    after, version = place.all(), place.collection.version
    assert place.apply().as_json() == {
        **{"moved": 0, "restored": 0, "refused": [], "bytes": 0},
        "quarantine": str(place.quarantine),
    }
    assert same(place.all(), after) and place.collection.version == version
    assert place.undo().restored == len(GOING)
    assert place.undo().restored == 0 and same(place.all(), first)
    assert place.apply().moved == len(GOING) and same(place.all(), after)


def child(place: Place, action: str, last: int = 0) -> int:
    """Run until line ``last``; the number of lines of a whole run."""
    command = ["tests.ingest.quarantine_child", action, place.path, place.collection.uri, last]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in {0, -signal.SIGKILL if last else 0}, done.stderr
    return 0 if last else int(done.stdout)


def kill_everywhere(place: Place, kills: int) -> None:
    """Kill apply and undo at so many of their lines; both ways out lead back to the start."""
    before = place.all()
    in_apply = child(place, "apply")
    after = place.tree(), place.rows()
    in_undo = child(place, "undo")
    assert same(place.all(), before)
    moments = random.Random(os.getpid())
    for action, lines in (("apply", in_apply), ("undo", in_undo)):
        for last in sorted(moments.sample(range(1, lines + 1), kills)):
            if action == "undo":
                place.apply()
            child(place, action, last)
            if last % 2:
                assert not place.apply().refused, last
                assert (place.tree(), place.rows()) == after, last
            assert not place.undo().refused, last
            assert same(place.all(), before), last
            assert os.listdir(place.path.parent) == ["plan.parquet"], last


def test_killed_at_some_lines(place):
    kill_everywhere(place, 2)


@pytest.mark.slow
def test_killed_at_many_lines(place):
    kill_everywhere(place, 20)


@pytest.fixture
def other_disk():
    """A folder on another file system than temporary files."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path("/tmp").stat().st_dev:
        pytest.skip("needs /dev/shm as another file system")
    folder = shm / f"retrieval-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_across_file_systems(place, other_disk):
    before = place.all()
    place.path = Path(shutil.move(place.path, other_disk / "plan.parquet"))
    assert place.apply().moved == len(GOING)
    after = place.tree()
    assert after == without(before[0], GOING, place)
    assert place.undo().restored == len(GOING) and same(place.all(), before)


@pytest.mark.slow
def test_killed_at_many_lines_across_file_systems(place, other_disk):
    place.path = Path(shutil.move(place.path, other_disk / "plan.parquet"))
    kill_everywhere(place, 20)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_without_hard_links(place, monkeypatch, code):
    def refuse(source, target):
        raise OSError(code, os.strerror(code))

    before = place.all()
    link = os.link
    monkeypatch.setattr(files.os, "link", refuse)
    if code == errno.EXDEV:  # only between folders
        monkeypatch.setattr(
            files.os, "link", lambda a, b: link(a, b) if str(a).endswith(".part") else refuse(a, b)
        )
    assert place.apply().moved == len(GOING)
    assert place.undo().restored == len(GOING)
    assert same(place.all(), before)


def test_a_folder_that_cannot_be_written_keeps_its_files(place, monkeypatch):
    def unlink(path):
        if str(path).startswith(str(place.folder / "a")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.remove(path)

    before = place.all()
    monkeypatch.setattr(files.os, "unlink", unlink)  # permissions do not bind the superuser
    report = place.apply()
    inside = [name for name in GOING if name.startswith("a/")]
    assert refused(report).keys() == {place.uri(name) for name in inside}
    assert "Permission denied" in report.refused[0][1]
    others = [name for name in GOING if name not in inside]
    assert place.tree() == without(before[0], others, place)
    assert place.undo().restored == len(others) and same(place.all(), before)


def interrupt(*_):
    raise KeyboardInterrupt


def refused(report) -> dict[str, str]:
    return dict(report.refused)


def test_a_file_that_changed_is_left_alone(place):
    changed = place.folder / GOING[0]
    changed.write_bytes(b"other bytes")
    (place.folder / GOING[1]).unlink()
    link = place.folder / GOING[2]
    link.rename(place.folder / "elsewhere.png")
    link.symlink_to(place.folder / "elsewhere.png")
    before = place.tree()
    report = place.apply()
    assert report.moved == len(GOING) - 3
    reasons = refused(report)
    assert "content changed" in reasons[place.uri(GOING[0])]
    assert "gone" in reasons[place.uri(GOING[1])]
    assert "symbolic link" in reasons[place.uri(GOING[2])]
    assert place.tree() == without(before, GOING[3:], place)
    assert len(place.collection) == len(KEPT) + 4
    assert place.apply().refused == report.refused
    assert place.undo().restored == report.moved and place.tree() == before


def test_the_last_copy_never_goes(place):
    (place.folder / KEPT[0]).unlink()
    (place.folder / KEPT[1]).write_bytes(b"no picture")
    place.collection.delete([place.id(KEPT[2])])
    before = place.tree()
    report = place.apply()
    assert report.moved == 0 and len(report.refused) == len(GOING)
    assert place.tree() == before and not place.quarantine.exists()
    reasons = [reason for _, reason in report.refused[:3]]
    assert "gone" in reasons[0] and "changed" in reasons[1] and "no longer" in reasons[2]
    assert place.undo().restored == 0 and not place.quarantine.exists()


def test_one_file_by_two_names_is_not_moved_away_from_itself(place, tmp_path):
    (tmp_path / "door").symlink_to(place.folder)
    twin = place.collection.store.rows([place.id(KEPT[0])], columns_of(place.collection.store))
    uri = str(tmp_path / "door" / KEPT[0])
    twin = twin.set_column(0, "image_id", pa.array([7]))
    at = twin.column_names.index("uri")
    place.collection.store.upsert(twin.set_column(at, "uri", pa.array([uri])))
    table = place.table([GOING[0]]).to_pylist()[0]
    record = place.collection.get(7)
    table |= {"image_id": 7, "uri": uri, "content_hash": record.content_hash}
    write_plan(pa.Table.from_pylist([table], plan_schema()), place.path)
    report = place.apply()
    assert report.moved == 0 and "another name" in report.refused[0][1]
    assert (place.folder / KEPT[0]).exists()
    place.undo()
    place.write(["b/another name.png"], keep=["b/plain.png"])  # two hard links are two files
    assert place.apply().moved == 1 and (place.folder / "b/plain.png").exists()


def test_images_that_are_not_local_files_or_not_here_any_more_are_refused(place):
    table = place.table(GOING[:3]).to_pylist()
    table[0] |= {"uri": "s3://bucket/a.png"}
    place.collection.store.update(pa.table({k: [table[0][k]] for k in ("image_id", "uri")}))
    place.collection.delete([table[1]["image_id"]])
    moved = {"image_id": [table[2]["image_id"]], "uri": ["/elsewhere.png"]}
    place.collection.store.update(pa.table(moved))
    write_plan(pa.Table.from_pylist(table, plan_schema()), place.path)
    before = place.tree()
    reasons = [reason for _, reason in place.apply().refused]
    assert "no local file" in reasons[0] and "no longer" in reasons[1] and "new plan" in reasons[2]
    assert place.tree() == before


def test_what_is_no_plan_or_another_collections_is_refused(place, tmp_path):
    before = place.all()
    other = retrieval.open(tmp_path / "other.lance", create=True, encoders=[ColourEncoder()])
    with pytest.raises(PlanError, match="for the collection"):
        apply(place.path, other)
    assert not place.quarantine.exists()
    with pytest.raises(PlanError, match="there is no plan"):
        apply(tmp_path / "nothing.parquet", place.collection)
    with pytest.raises(PlanError, match="there is no plan"):
        undo(tmp_path / "nothing.parquet", place.collection)
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(PlanError, match="is no plan"):
        apply(tmp_path / "text.parquet", place.collection)
    table = place.table(GOING)
    pq.write_table(table.drop_columns(["collection_id"]), tmp_path / "bare.parquet")
    with pytest.raises(PlanError, match="lacks 'collection_id'"):
        apply(tmp_path / "bare.parquet", place.collection)
    for wrong in (
        table.drop_columns(["keep_id"]),
        pa.concat_tables([table, table]),
        place.table([*GOING[:2]], keep=[GOING[1]]),
        table.set_column(0, "image_id", pa.array([None] * len(table), pa.int64())),
    ):
        with pytest.raises(PlanError, match="is no plan"):
            write_plan(wrong, tmp_path / "new.parquet")
    assert not (tmp_path / "new.parquet").exists() and same(place.all(), before)
    place.apply()
    with pytest.raises(PlanError, match="another collection"):
        undo(place.path, other)


def test_an_applied_plan_is_not_overwritten(place):
    place.write(GOING[:1])
    assert place.apply().moved == 1
    with pytest.raises(PlanError, match="undo it first"):
        place.write(GOING[1:])
    pq.write_table(place.table(GOING[1:]), place.path)  # by other means
    with pytest.raises(PlanError, match="undo it first"):
        place.apply()
    place.path.unlink()
    assert place.undo().restored == 1  # the plan itself is not needed
    place.write(GOING)
    assert place.apply().moved == len(GOING)


def test_a_quarantine_that_cannot_be_written_moves_nothing(place):
    before = place.all()
    place.quarantine.write_text("in the way")
    with pytest.raises(PlanError, match="cannot be written"):
        place.apply()
    assert same(place.all(), before) and place.quarantine.read_text() == "in the way"


def test_undo_overwrites_nothing(place):
    before, rows = place.tree(), place.rows()
    place.apply()
    taken = place.folder / GOING[0]
    taken.write_bytes(b"something new")
    report = place.undo()
    assert report.restored == len(GOING) - 1
    assert "something else" in refused(report)[place.uri(GOING[0])]
    assert taken.read_bytes() == b"something new"
    assert place.quarantine.exists() and len(place.collection) == len(rows) - 1
    taken.unlink()
    report = place.undo()
    assert (report.restored, report.refused) == (1, [])
    assert place.tree() == before and place.rows() == rows and not place.quarantine.exists()


def test_an_apply_after_half_an_undo_ends_as_one_apply(place):
    before = place.all()
    place.apply()
    after = place.tree(), place.rows()
    (place.folder / GOING[0]).write_bytes(b"something new")
    assert place.undo().restored == len(GOING) - 1
    (place.folder / GOING[0]).unlink()
    assert place.apply().moved == len(GOING) - 1
    assert (place.tree(), place.rows()) == after
    place.undo()
    assert same(place.all(), before)


def test_an_undo_that_nothing_was_saved_for(place):
    """Killed between the files and the rows, an apply leaves the rows where they are."""
    before = place.all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying._Run, "_take_out", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.apply()
    assert len(place.rows()) == len(before[1]) and len(place.tree()) < len(before[0])
    assert place.undo().restored == len(GOING) and same(place.all(), before)


def test_a_row_that_was_indexed_again_meanwhile_gives_way_to_the_saved_one(place):
    before = place.all()
    place.apply()
    (image_id,) = (row["image_id"] for row in before[1] if row["label"] == "odd")
    shutil.copy(next(place.quarantine.glob(f"{image_id}-*")), place.folder / GOING[0])
    assert ingest(place.folder, place.collection).added == 1
    (place.folder / GOING[0]).unlink()
    report = place.undo()
    assert (report.restored, report.refused) == (len(GOING), [])
    assert same(place.all(), before) and not place.quarantine.exists()


def test_an_id_that_went_to_another_file_is_told(place):
    place.apply()
    first = place.folder / GOING[0]
    picture(99).save(first)
    ingest(place.folder, place.collection)
    first.rename(place.folder / "moved.png")
    ingest(place.folder, place.collection)
    report = place.undo()
    assert report.restored == len(GOING)
    assert "index its folder" in refused(report)[place.uri(GOING[0])]
    assert place.quarantine.exists()  # for the row's sake
    assert ingest(place.folder, place.collection).added == 1


def test_rows_come_back_into_a_collection_that_changed(place):
    store, rows = place.collection.store, place.rows()
    place.apply()
    space = ColourEncoder.spec
    other = Space("later", space.name, "w", "p", "none", 3, ("image",))
    store.add_space(other)
    place.undo()
    here = {row["image_id"]: row for row in place.rows()}
    assert all(here[row["image_id"]].items() >= row.items() for row in rows)
    assert all(row["vector_later"] is None for row in here.values())
    found = store.again().vectors_of("colour", [row["image_id"] for row in rows])
    np.testing.assert_array_equal(found, [row["vector_colour"] for row in rows])


def test_a_line_that_was_cut_short_is_ignored(place):
    before = place.all()
    place.apply()
    with (place.quarantine / "journal.jsonl").open("a") as file:
        file.write('{"image_id": 12, "ur')
    assert place.apply().moved == 0
    assert place.undo().restored == len(GOING) and same(place.all(), before)


def test_a_damaged_journal_is_told_and_nothing_is_lost(place):
    place.apply()
    journal = place.quarantine / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(text.replace("{", "", 1))
    tree = place.tree()
    for action in (place.apply, place.undo):
        with pytest.raises(PlanError, match="damaged"):
            action()
    assert place.tree() == tree
    assert len([path for path in place.quarantine.iterdir() if path.suffix == ".png"]) == len(GOING)


def test_what_others_put_into_quarantine_stays(place):
    place.apply()
    (place.quarantine / "note.txt").write_text("mine")
    place.undo()
    assert [path.name for path in place.quarantine.iterdir()] == ["note.txt"]
    assert place.apply().moved == len(GOING)


def test_a_quarantine_among_the_pictures_is_not_indexed(place):
    place.path = Path(shutil.move(place.path, place.folder / "plan.parquet"))
    place.apply()
    left = {path_of(found.uri) for found in FolderSource(place.folder)}
    assert left == {str(place.folder / name) for name in [*KEPT, "b/another name.png"]}


def test_a_report_is_json(place):
    (place.folder / GOING[0]).unlink()
    report = json.loads(json.dumps(place.apply().as_json()))
    assert report["moved"] == len(GOING) - 1
    assert report["refused"] == [{"uri": place.uri(GOING[0]), "reason": "gone"}]
