"""What others do at the worst moment takes no file, no row and not the truth."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexers import ingest
from indexers.quarantine import apply, files, plan_schema, undo, write_plan
from indexers.quarantine.journal import Journal
from indexers.sources import FolderSource
from retrieval import folders
from retrieval.errors import PlanError
from retrieval.query import Collection
from tests.ingest.test_quarantine import GOING, KEPT, Place, interrupt, other_disk, refused, same
from tests.pictures import picture

__all__ = ["other_disk"]
applying = sys.modules[apply.__module__]
undoing = sys.modules[undo.__module__]


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def before_calls(monkeypatch, owner, name: str, act) -> None:
    """``act(*arguments)`` once, right before the first call of ``owner.name``."""
    real, first = getattr(owner, name), [True]

    def called(*arguments, **options):
        if first:
            first.clear()
            act(*arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, called)


def after_calls(monkeypatch, owner, name: str, act) -> None:
    """``act(*arguments)`` once, right after the first call of ``owner.name``."""
    real, first = getattr(owner, name), [True]

    def called(*arguments, **options):
        answer = real(*arguments, **options)
        if first:
            first.clear()
            act(*arguments)
        return answer

    monkeypatch.setattr(owner, name, called)


def save_anew(path: str) -> None:
    """As an editor does it."""
    Path(f"{path}~").write_bytes(b"my new edit")
    os.replace(f"{path}~", path)


# -- files ----------------------------------------------------------------------------------------


def test_an_edit_while_a_file_is_copied_stays(place, other_disk, monkeypatch):
    place.path = Path(shutil.move(place.path, other_disk / "plan.parquet"))
    after_calls(monkeypatch, files, "_copy", lambda source, *_: save_anew(source))
    report = place.apply()
    assert report.moved == len(GOING) - 1
    assert "changed at that moment" in refused(report)[place.uri(GOING[0])]
    assert (place.folder / GOING[0]).read_bytes() == b"my new edit"
    assert place.undo().restored == len(GOING) - 1


@pytest.mark.parametrize("change", [save_anew, lambda path: Path(path).write_bytes(b"other")])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_changes_after_its_check_stays(place, monkeypatch, change, links):
    if not links:

        def refuse(source, target):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    victim = str(place.folder / GOING[1])
    before_calls(monkeypatch, applying, "move", lambda *_: change(victim))
    report = place.apply()
    assert report.moved == len(GOING) - 1
    assert "changed at that moment" in refused(report)[place.uri(GOING[1])]
    assert os.path.exists(victim) and place.id(GOING[1])
    assert place.undo().restored == len(GOING) - 1 and os.path.exists(victim)


def test_an_edit_between_link_and_unlink_stays(place, monkeypatch):
    after_calls(monkeypatch, folders, "place", lambda source, _: save_anew(source))
    assert place.apply().moved == len(GOING) - 1
    assert (place.folder / GOING[0]).read_bytes() == b"my new edit"


def test_a_kept_image_that_is_another_now_keeps_nothing(place):
    picture(50).save(place.folder / KEPT[0], "PNG")
    ingest(place.folder, place.collection)
    report = place.apply()
    lost = [name for number, name in enumerate(GOING) if number % len(KEPT) == 0]
    assert refused(report).keys() == {place.uri(name) for name in lost}
    assert "another one now" in report.refused[0][1]
    assert all((place.folder / name).exists() for name in lost)


def test_a_kept_file_that_goes_at_that_moment_brings_the_other_back(place, monkeypatch, tmp_path):
    place.write(GOING[:1], keep=KEPT[:1])
    before, rows = place.tree(), place.rows()
    kept = place.folder / KEPT[0]
    after_calls(monkeypatch, applying, "move", lambda *_: kept.rename(tmp_path / "elsewhere"))
    report = place.apply()
    assert report.moved == 0 and "gone" in refused(report)[place.uri(GOING[0])]
    (tmp_path / "elsewhere").rename(kept)
    assert (place.tree(), place.rows()) == (before, rows) and not place.quarantine.exists()


def test_a_killed_run_looks_at_what_is_kept_before_it_goes_on(place, monkeypatch):
    before = place.tree()
    with monkeypatch.context() as patch:
        patch.setattr(applying._Run, "_may_stay_away", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.apply()
    assert len(place.tree()) == len(before) - 1
    (place.folder / KEPT[0]).unlink()
    place.apply()
    assert (place.folder / GOING[0]).exists() and place.id(GOING[0])


def test_one_plan_of_a_collection_at_a_time(place, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def another(*_):
        descriptor = os.open(place.collection.uri, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    before_calls(monkeypatch, applying, "move", another)
    before_calls(monkeypatch, undoing, "move", another)
    assert place.apply().moved == place.undo().restored == len(GOING)


def test_a_file_of_a_folder_that_is_mounted_twice_stays(place, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    if subprocess.run(["mount", "--bind", place.folder, again], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        ingest(again, place.collection)
        (row,) = place.table(["b/plain.png"], keep=["b/another name.png"]).to_pylist()
        uri = str(again / "b/another name.png")  # two hard links, the kept one by two names
        twin = place.collection.store.find_uri(uri)
        row |= {"image_id": twin, "uri": uri}
        write_plan(pa.Table.from_pylist([row], plan_schema()), place.path)
        before = place.tree()
        report = place.apply()
        assert report.moved == 0 and "gone" in refused(report)[uri]
        assert place.tree() == before
    finally:
        subprocess.run(["umount", again], check=True)


def test_unfinished_files_are_not_indexed(place):
    shutil.copy(place.folder / KEPT[0], place.folder / "a" / ".123.part")
    assert not [found for found in FolderSource(place.folder) if found.uri.endswith(".part")]


# -- rows -----------------------------------------------------------------------------------------


def test_an_undo_that_was_killed_before_its_rows_and_an_index_lose_no_row(place, monkeypatch):
    before = place.all()
    place.apply()
    with monkeypatch.context() as patch:
        patch.setattr(undoing._Run, "_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.undo()
    assert ingest(place.folder, place.collection).added
    assert place.undo().refused == [] and same(place.all(), before)


def test_an_index_while_rows_come_back_loses_none(place, monkeypatch):
    before = place.all()
    place.apply()
    after_calls(
        monkeypatch,
        undoing._There,
        "__init__",
        lambda *_: ingest(place.folder, place.collection),
    )
    assert place.undo().refused == [] and same(place.all(), before)


def test_a_second_row_of_the_same_file_goes_when_the_saved_one_is_back(place):
    before = place.all()
    place.apply()
    saved = next(iter(Journal(place.quarantine).saved_rows()))
    at = saved["uri"].to_pylist().index(place.uri(GOING[0]))
    place.collection.store.upsert(saved.slice(at, 1).set_column(0, "image_id", pa.array([7])))
    assert place.undo().refused == [] and same(place.all(), before)


def test_a_row_of_another_picture_at_the_place_is_told_and_the_saved_one_kept(place):
    before = place.all()
    place.apply()
    first = place.folder / GOING[0]
    picture(99).save(first)
    ingest(place.folder, place.collection)
    first.unlink()
    report = place.undo()
    assert "another picture" in refused(report)[place.uri(GOING[0])] and first.exists()
    ingest(place.folder, place.collection)
    assert place.undo().refused == [] and same(place.all(), before)


def test_rows_are_saved_before_their_files_move(place, monkeypatch):
    before = place.all()
    before_calls(
        monkeypatch,
        applying._Run,
        "_take_out",
        lambda *_: ingest(place.folder, place.collection, prune=True),
    )
    place.apply()
    assert place.undo().refused == [] and same(place.all(), before)


def test_a_label_that_comes_between_is_saved_too(place, monkeypatch):
    row = {"image_id": place.id(GOING[0]), "label": "late"}
    before_calls(
        monkeypatch,
        applying._Run,
        "_take_out",
        lambda *_: place.collection.store.update(pa.Table.from_pylist([row])),
    )
    place.apply()
    place.undo()
    assert place.collection.get(place.id(GOING[0])).label == "late"


def test_the_row_of_another_picture_at_a_place_that_became_free_stays(place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(applying._Run, "_take_out", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.apply()
    picture(99).save(place.folder / GOING[0])
    ingest(place.folder, place.collection)
    known = place.collection.get(place.id(GOING[0])).content_hash
    place.apply()
    assert place.collection.get(place.id(GOING[0])).content_hash == known


def test_rows_that_are_lost_are_told(place):
    place.apply()
    for path in place.quarantine.glob("rows-*"):
        path.unlink()
    report = place.undo()
    assert report.restored == len(GOING) == len(report.refused)
    assert all("its row is lost" in reason for _, reason in report.refused)
    assert not place.quarantine.exists()


def test_damaged_rows_are_told_with_what_to_do(place):
    place.apply()
    (rows,) = place.quarantine.glob("rows-*")
    rows.write_bytes(b"no rows")
    for action in (place.undo, place.apply):
        with pytest.raises(PlanError, match="move it elsewhere"):
            action()
    rows.rename(place.path.with_name("rows"))
    assert place.undo().restored == len(GOING)


def test_rows_are_durable_before_they_leave_the_collection(place, monkeypatch):
    synced, seen = [], []
    monkeypatch.setattr(folders, "sync", lambda folder: synced.append(str(folder)))
    before_calls(monkeypatch, Collection, "delete", lambda *_: seen.extend(synced))
    place.apply()
    assert seen[-1] == str(place.quarantine)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_disk_that_fails_is_told(tmp_path, monkeypatch, code):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            folders.sync(tmp_path)
    else:
        folders.sync(tmp_path)


# -- the truth ------------------------------------------------------------------------------------


def test_a_file_that_is_lost_is_told_though_another_has_its_place(place):
    place.apply()
    journal = Journal(place.quarantine)
    entry = next(iter(journal.entries.values()))
    os.unlink(journal.hidden(entry))
    Path(entry.path).write_bytes(b"other")
    report = place.undo()
    assert "no longer in quarantine" in refused(report)[entry.uri]
    assert place.quarantine.exists()


def test_a_plan_that_was_renamed_after_it_was_applied_says_so(place):
    place.apply()
    renamed = place.path.rename(place.path.with_name("old.parquet"))
    with pytest.raises(PlanError, match=r"call the plan plan\.parquet again"):
        undo(renamed, place.collection)
    with pytest.raises(PlanError, match=r"there is .*plan\.parquet\.quarantine"):
        undo(place.path.with_name("nothing"), place.collection)
    renamed.rename(place.path)
    assert place.undo().restored == len(GOING)


def test_an_apply_that_moved_nothing_leaves_the_place_free(place):
    for name in KEPT:
        (place.folder / name).unlink()
    assert place.apply().moved == 0
    place.write(GOING[:1], keep=GOING[1:2])
    assert place.apply().moved == 1


def test_what_did_not_move_is_none_of_undos_business(place, monkeypatch):
    before_calls(monkeypatch, applying, "move", lambda *_: save_anew(str(place.folder / GOING[1])))
    place.apply()
    place.collection.delete([place.id(GOING[1])])
    assert place.undo().refused == []
    assert place.collection.store.again().find_uri(place.uri(GOING[1])) is None


def test_what_came_back_is_none_of_a_later_undos_business(place):
    place.apply()
    (place.folder / GOING[0]).write_bytes(b"in the way")
    assert place.undo().restored == len(GOING) - 1
    picture(99).save(place.folder / GOING[1])
    (place.folder / GOING[0]).unlink()
    report = place.undo()
    assert (report.restored, report.refused) == (1, []) and not place.quarantine.exists()


def test_what_a_killed_run_did_not_move_is_let_go(place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(applying, "move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.apply()
    for name in KEPT:
        (place.folder / name).unlink()
    assert place.apply().moved == 0 and not place.quarantine.exists()


def test_only_plans_are_replaced(place):
    photo = place.folder / KEPT[0]
    before = place.tree()
    with pytest.raises(PlanError, match="choose a name that is free"):
        write_plan(place.table(GOING), photo)
    with pytest.raises(PlanError, match="choose a name that is free"):
        write_plan(place.table(GOING), place.folder)
    assert place.tree() == before
    place.write(GOING[:1])
    place.write(GOING[:2])


def test_pandas_may_take_rows_out_of_a_plan(place):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(place.path)
    frame[frame.uri.isin([place.uri(GOING[0]), place.uri(GOING[4])])].to_parquet(place.path)
    assert place.apply().moved == 2 and place.undo().restored == 2
    assert len(pq.read_table(place.path)) == 2


def test_a_full_disk_tells_what_was_done_until_then(place, monkeypatch):
    monkeypatch.setattr(applying, "_ROWS", 3)
    (place.folder / GOING[0]).unlink()
    real, calls = Journal.intend, []

    def intend(journal, entries):
        calls.append(entries)
        if len(calls) == 2:
            raise PlanError("no room")
        real(journal, entries)

    monkeypatch.setattr(Journal, "intend", intend)
    with pytest.raises(PlanError, match="no room; until then 2 files were moved, 1 refused"):
        place.apply()
    assert place.undo().restored == 2
