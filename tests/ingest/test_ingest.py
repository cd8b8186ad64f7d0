"""What one run of ingestion does to a collection, and what the next one does not do."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retrieval
from indexers import IngestReport, ingest
from indexers.known import KnownImages
from indexers.prepare import Job, Preparer
from indexers.sources import FolderSource
from retrieval.errors import (
    CollectionError,
    CollectionNotFound,
    EncoderError,
    SourceError,
    SpaceMismatch,
)
from tests.encoders_of_tests import ColourEncoder, FragileEncoder
from tests.pictures import picture, write_pictures
from tests.stored import columns_of

PHOTOS = 12


@pytest.fixture
def photos(tmp_path) -> Path:
    write_pictures(tmp_path / "photos", PHOTOS)
    return tmp_path / "photos"


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "made.lance"


def run(source, target, **options) -> IngestReport:
    return ingest(source, target, encoders=[ColourEncoder()], batch_size=5, **options)


def counts(report: IngestReport) -> dict[str, int]:
    names = ("added", "updated", "skipped", "removed", "failed", "encoded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def rows(target) -> dict[str, dict]:
    store = retrieval.open(target).store
    return {row["uri"]: row for row in store.rows(store.ids(), columns_of(store)).to_pylist()}


def ids(target) -> dict[str, int]:
    return {uri: row["image_id"] for uri, row in rows(target).items()}


def test_a_folder_becomes_a_collection(photos, target):
    assert counts(run(photos, target)) == {"added": PHOTOS, "encoded": PHOTOS}
    found = rows(target)
    assert set(found) == {str(p) for p in photos.iterdir()}
    row = found[str(photos / "0003.png")]
    assert (row["width"], row["height"], row["format"]) == (40, 30, "PNG")
    expected = ColourEncoder().encode_images([picture(3)])[0]
    np.testing.assert_allclose(row["vector_colour"], expected, atol=1e-6)


def test_the_second_run_changes_nothing(photos, target):
    run(photos, target)
    before = retrieval.open(target).version
    assert counts(run(photos, target)) == {"skipped": PHOTOS}
    assert retrieval.open(target).version == before


def test_a_handle_that_is_behind_adds_nothing_twice(photos, target):
    behind = retrieval.open(target, create=True, encoders=[ColourEncoder()])
    run(photos, target)
    assert counts(run(photos, behind)) == {"skipped": PHOTOS}


def test_moved_files_keep_their_ids_and_vectors(photos, target):
    run(photos, target)
    before = rows(target)
    (photos / "away").mkdir()
    for number in range(0, PHOTOS, 2):
        os.rename(photos / f"{number:04d}.png", photos / "away" / f"{number:04d}.png")
    assert counts(run(photos, target)) == {"updated": PHOTOS // 2, "skipped": PHOTOS // 2}
    after = rows(target)
    assert len(after) == PHOTOS
    for number in range(0, PHOTOS, 2):
        old = before[str(photos / f"{number:04d}.png")]
        new = after[str(photos / "away" / f"{number:04d}.png")]
        assert {**new, "uri": old["uri"]} == old


def test_an_image_at_the_place_of_one_that_moved_gets_an_id_of_its_own(photos, target):
    run(photos, target)
    os.rename(photos / "0000.png", photos / "moved.png")
    run(photos, target)
    picture(99).save(photos / "0000.png")
    assert counts(run(photos, target)) == {"added": 1, "skipped": PHOTOS, "encoded": 1}
    assert len(set(ids(target).values())) == PHOTOS + 1


def test_copies_are_records_of_their_own_but_are_not_encoded_again(photos, target):
    run(photos, target)
    shutil.copy(photos / "0001.png", photos / "twin.png")
    assert counts(run(photos, target)) == {"added": 1, "skipped": PHOTOS}
    found = rows(target)
    one, twin = found[str(photos / "0001.png")], found[str(photos / "twin.png")]
    assert one["image_id"] != twin["image_id"]
    for column in ("content_hash", "vector_colour", "thumbnail", "width", "format"):
        assert one[column] == twin[column]


def test_a_changed_file_keeps_its_id_and_what_people_said_of_it(photos, target):
    run(photos, target)
    image_id = ids(target)[str(photos / "0002.png")]
    store = retrieval.open(target).store
    import pyarrow as pa

    store.update(pa.table({"image_id": [image_id], "label": ["mine"]}))
    picture(77, (50, 50)).save(photos / "0002.png")
    assert counts(run(photos, target)) == {"updated": 1, "skipped": PHOTOS - 1, "encoded": 1}
    row = rows(target)[str(photos / "0002.png")]
    assert (row["image_id"], row["label"], row["width"]) == (image_id, "mine", 50)
    expected = ColourEncoder().encode_images([picture(77, (50, 50))])[0]
    np.testing.assert_allclose(row["vector_colour"], expected, atol=1e-6)


def test_a_touched_file_is_not_encoded_again(photos, target):
    run(photos, target)
    os.utime(photos / "0002.png", (1, 1))
    assert counts(run(photos, target)) == {"updated": 1, "skipped": PHOTOS - 1}
    assert counts(run(photos, target)) == {"skipped": PHOTOS}


def test_vanished_files_stay_unless_pruned(photos, target):
    run(photos, target)
    (photos / "0000.png").unlink()
    assert counts(run(photos, target)) == {"skipped": PHOTOS - 1}
    assert len(rows(target)) == PHOTOS
    assert counts(run(photos, target, prune=True)) == {"skipped": PHOTOS - 1, "removed": 1}
    assert len(rows(target)) == PHOTOS - 1


def test_prune_leaves_other_folders_alone(photos, target, tmp_path):
    other = tmp_path / "other"
    write_pictures(other, 3, start=500)
    run([photos, other], target)
    shutil.rmtree(other)
    assert counts(run(photos, target, prune=True)) == {"skipped": PHOTOS}
    with pytest.raises(SourceError, match="no file or folder"):
        run(other, target, prune=True)
    assert len(rows(target)) == PHOTOS + 3


def test_a_bad_file_is_told_and_forgotten_when_it_is_mended(photos, target):
    good = (photos / "0005.png").read_bytes()
    (photos / "0005.png").write_bytes(good[: len(good) // 2])
    assert counts(run(photos, target)) == {
        "added": PHOTOS - 1,
        "failed": 1,
        "encoded": PHOTOS - 1,
    }
    (failure,) = retrieval.open(target).store.failures().to_pylist()
    assert failure["uri"] == str(photos / "0005.png")
    assert (failure["stage"], failure["kind"]) == ("decode", "truncated")
    version = retrieval.open(target).version
    assert counts(run(photos, target)) == {"skipped": PHOTOS - 1, "failed": 1}
    assert retrieval.open(target).version == version

    (photos / "0005.png").write_bytes(good)
    assert counts(run(photos, target)) == {"added": 1, "skipped": PHOTOS - 1, "encoded": 1}
    assert retrieval.open(target).store.failures().num_rows == 0


def test_a_failure_of_a_file_that_is_gone_is_forgotten(photos, target):
    (photos / "0005.png").write_bytes(b"nothing")
    run(photos, target)
    (photos / "0005.png").unlink()
    run(photos, target)
    assert retrieval.open(target).store.failures().num_rows == 0


def test_an_encoder_that_fails_on_one_picture_loses_no_other(photos, target):
    picture(1, (33, 33)).save(photos / "0004.png")
    report = ingest(photos, target, encoders=[FragileEncoder((33, 33))], batch_size=6)
    assert counts(report) == {"added": PHOTOS - 1, "failed": 1, "encoded": PHOTOS - 1}
    (failure,) = retrieval.open(target).store.failures().to_pylist()
    assert failure["uri"].endswith("0004.png") and failure["stage"] == "encode"
    assert "breaks the network" in failure["reason"]


def test_a_dry_run_counts_and_writes_nothing(photos, target):
    assert counts(run(photos, target, dry_run=True)) == {"added": PHOTOS, "encoded": PHOTOS}
    with pytest.raises(CollectionNotFound):
        retrieval.open(target)
    run(photos, target)
    before = retrieval.open(target).version
    write_pictures(photos, 2, start=100)
    os.rename(photos / "0000.png", photos / "moved.png")
    assert counts(run(photos, target, dry_run=True, prune=True)) == {
        "added": 2,
        "updated": 1,
        "skipped": PHOTOS - 1,
        "encoded": 2,
    }
    assert retrieval.open(target).version == before


def test_globs_choose_files(photos, target):
    write_pictures(photos / "raw", 3, start=100)
    write_pictures(photos / "tmp", 3, start=200)
    report = run(photos, target, include=["raw/*", "000*"], exclude=["tmp", "0001.*"])
    assert report.added == 3 + 9
    assert str(photos / "0001.png") not in rows(target)


def test_folder_names_become_labels(tmp_path, target):
    for name, start in (("cats", 0), ("dogs", 50)):
        write_pictures(tmp_path / "in" / name, 2, start=start)
    run(tmp_path / "in", target, labels="folder")
    labels = [row["label"] for _, row in sorted(rows(target).items())]
    assert labels == ["cats", "cats", "dogs", "dogs"]


def test_a_csv_gives_labels_splits_tags_and_typed_columns(photos, target):
    csv = photos / "facts.csv"
    csv.write_text(
        "file,kind,split,tags,price,kids,code\n"
        "0000.png,007,train,new;sale,9.5,true,x\n"
        "elsewhere/0001.png,b,test,,12,false,\n"
    )
    run(photos, target, labels=f"{csv}:kind")
    found = rows(target)
    first, second = found[str(photos / "0000.png")], found[str(photos / "0001.png")]
    assert (first["label"], first["split"], first["tags"]) == ("007", "train", ["new", "sale"])
    assert (first["price"], first["kids"], first["code"]) == (9.5, True, "x")
    assert (second["label"], second["price"], second["code"]) == ("b", 12.0, None)
    assert found[str(photos / "0002.png")]["label"] is None
    collection = retrieval.open(target)
    assert len(collection.store.ids("price < 10 and kids = true")) == 1

    csv.write_text(csv.read_text().replace("007", "008"))
    assert counts(run(photos, target, labels=f"{csv}:kind")) == {
        "updated": 1,
        "skipped": PHOTOS - 1,
    }
    assert rows(target)[str(photos / "0000.png")]["label"] == "008"
    # Without labels, what is stored stays.
    assert counts(run(photos, target)) == {"skipped": PHOTOS}


@pytest.mark.parametrize("labels", ["nowhere.csv:label", "folders", "facts.csv:", ":x"])
def test_labels_that_cannot_be_read_are_an_error_before_anything_is_written(photos, target, labels):
    with pytest.raises(SourceError, match="label"):
        run(photos, target, labels=labels)
    assert not target.exists()


def test_another_encoder_becomes_another_space_and_only_it_is_computed(photos, target):
    run(photos, target)

    class Second(ColourEncoder):
        spec = replace(ColourEncoder.spec, name="second")

    class Never(ColourEncoder):
        def encode_images(self, images):
            raise AssertionError("the first space was complete")

    report = ingest(photos, target, encoders=[Never(), Second()])
    assert counts(report) == {"updated": PHOTOS, "encoded": PHOTOS}
    assert all(row["vector_second"] for row in rows(target).values())
    report = ingest(photos, target, encoders=[Never(), Second()])
    assert counts(report) == {"skipped": PHOTOS}


def test_encoders_whose_columns_would_be_one_leave_no_empty_space(photos, target):
    ingest(photos, target, encoders=[ColourEncoder()])
    twins = [ColourEncoder(), ColourEncoder()]
    for twin, name in zip(twins, ("a/b", "a_b"), strict=True):
        twin.spec = replace(twin.spec, name=name)
    with pytest.raises(CollectionError, match="share the column"):
        ingest(photos, target, encoders=[ColourEncoder(), *twins])
    assert list(retrieval.open(target).spaces) == ["colour"]


def test_a_runtime_is_recorded_with_its_first_vectors_not_before(photos, target):
    class Elsewhere(ColourEncoder):
        runtime = "elsewhere"

    ingest(photos, target, encoders=[ColourEncoder()])
    ingest(photos, target, encoders=[Elsewhere()])
    assert retrieval.open(target).spaces["colour"].runtime == "numpy"
    Image.new("RGB", (9, 9), "teal").save(photos / "new.png")
    ingest(photos, target, encoders=[Elsewhere()])
    assert retrieval.open(target).spaces["colour"].runtime == "numpy, elsewhere"


def test_an_encoder_of_other_weights_is_refused(photos, target):
    run(photos, target)

    class Other(ColourEncoder):
        weights_hash = "retrained"

    with pytest.raises(SpaceMismatch, match=r"'none'.*'retrained'"):
        ingest(photos, target, encoders=[Other()])
    assert len(rows(target)) == PHOTOS


def test_a_run_that_is_stopped_commits_what_is_done_and_the_next_goes_on(photos, target):
    stop = threading.Event()

    def watch(report: IngestReport) -> None:
        if report.added:
            stop.set()

    options = {"encoders": [ColourEncoder()], "workers": 1, "batch_size": 1}
    first = ingest(photos, target, **options, stop=stop, watch=watch)
    assert first.interrupted and 0 < first.added < PHOTOS
    assert len(rows(target)) == first.added
    second = run(photos, target)
    assert counts(second)["skipped"] == first.added
    assert len(rows(target)) == PHOTOS


def test_pictures_are_encoded_in_parts_when_they_are_many_pixels(photos):
    batches = []

    class Counting(ColourEncoder):
        def encode_images(self, images):
            batches.append(len(images))
            return super().encode_images(images)

    jobs = [Job(found, None) for found in FolderSource(photos)]
    held = 3 * 40 * 30
    prepare = Preparer([Counting()], KnownImages(), max_pixels=10**8, held_pixels=held)
    chunk = prepare(jobs)
    assert batches == [3, 3, 3, 3]
    expected = ColourEncoder().encode_images([picture(n) for n in range(PHOTOS)])
    found = [outcome.vectors["colour"] for outcome in chunk.outcomes]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_empty_folder_makes_an_empty_collection(tmp_path, target):
    (tmp_path / "empty").mkdir()
    assert counts(run(tmp_path / "empty", target)) == {}
    assert len(retrieval.open(target)) == 0


def test_a_collection_inside_the_folder_is_not_taken_for_pictures(photos):
    inside = photos / "mine.lance"
    assert run(photos, inside).added == PHOTOS
    assert counts(run(photos, inside)) == {"skipped": PHOTOS}


def test_labels_reach_the_images_that_have_them_in_the_first_run(photos, target, tmp_path):
    csv = tmp_path / "facts.csv"
    csv.write_text("file,label,price\n0003.png,shoe,3\n0005.png,NA,4\n")
    report = run(photos, target, labels=f"{csv}:label")
    assert (report.added, report.labelled) == (PHOTOS, 2)
    found = rows(target)
    assert found[str(photos / "0003.png")]["label"] == "shoe"
    assert found[str(photos / "0005.png")]["label"] == "NA"
    assert counts(run(photos, target, labels=f"{csv}:label")) == {"skipped": PHOTOS}


@pytest.mark.parametrize(
    ("header", "says"),
    [("width", "width"), ("a.b", "a.b"), ("_rowid", "_rowid"), ("vector_x", "vector_x")],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_csv_column_that_cannot_be_one_is_refused_before_anything_is_made(
    photos, target, tmp_path, header, says, dry_run
):
    csv = tmp_path / "facts.csv"
    csv.write_text(f"file,label,{header}\n0003.png,shoe,3\n")
    with pytest.raises(CollectionError, match=says):
        run(photos, target, labels=f"{csv}:label", dry_run=dry_run)
    assert not target.exists()


def test_values_that_no_column_keeps_do_not_change_anything_twice(photos, target, tmp_path):
    csv = tmp_path / "facts.csv"
    csv.write_text(
        "file,label,price,at\n0001.png,a,1.5,2024-01-01 00:00:00.123456789\n0002.png,b,NAN,\n"
    )
    run(photos, target, labels=f"{csv}:label")
    assert rows(target)[str(photos / "0002.png")]["price"] is None
    assert counts(run(photos, target, labels=f"{csv}:label")) == {"skipped": PHOTOS}


def test_empty_and_whole_number_columns_fit_what_is_stored(photos, target, tmp_path):
    csv = tmp_path / "facts.csv"
    for values in ("0.5", "", "7"):
        csv.write_text(f"file,label,price\n0003.png,shoe,{values}\n")
        run(photos, target, labels=f"{csv}:label")
    assert rows(target)[str(photos / "0003.png")]["price"] == 7.0


@pytest.mark.parametrize("content", ["file,label\n\xe9,x\n", "file,label,label\na,b,c\n", ""])
def test_a_csv_that_cannot_be_read_is_one_clear_error(photos, target, tmp_path, content):
    csv = tmp_path / "facts.csv"
    csv.write_bytes(content.encode("latin-1"))
    with pytest.raises(SourceError, match=r"facts\.csv"):
        run(photos, target, labels=f"{csv}:label")


def test_swapped_files_have_their_own_vectors_however_commits_fall(photos, target):
    run(photos, target)
    names = sorted(photos.iterdir())
    away = [path.rename(path.with_suffix(".tmp")) for path in names]
    for path, source in zip(names, [*away[1:], away[0]], strict=True):
        source.rename(path)
    report = ingest(photos, target, encoders=[ColourEncoder()], commit_rows=1, batch_size=1)
    assert report.updated == PHOTOS
    found = rows(target)
    for number, path in enumerate(names):
        expected = ColourEncoder().encode_images([picture((number + 1) % PHOTOS)])[0]
        np.testing.assert_allclose(found[str(path)]["vector_colour"], expected, atol=1e-6)
    assert counts(run(photos, target)) == {"skipped": PHOTOS}


def test_a_copy_whose_original_is_deleted_meanwhile_has_its_own_vectors(photos, target):
    run(photos, target)
    for number in range(6):
        shutil.copy(photos / f"{number:04d}.png", photos / f"copy{number}.png")

    deleted = False

    def watch(report: IngestReport) -> None:
        nonlocal deleted
        if not deleted:
            retrieval.open(target).delete(
                [ids(target)[str(photos / f"{n:04d}.png")] for n in (0, 1)]
            )
            deleted = True

    report = run(photos, target, watch=watch)
    assert report.added == 6
    found = rows(target)
    for number in range(6):
        expected = ColourEncoder().encode_images([picture(number)])[0]
        row = found[str(photos / f"copy{number}.png")]
        np.testing.assert_allclose(row["vector_colour"], expected, atol=1e-6)


def test_a_move_and_a_new_encoder_in_one_run_keep_the_ids(photos, target):
    run(photos, target)
    before = ids(target)
    os.rename(photos / "0000.png", photos / "moved.png")

    class Second(ColourEncoder):
        spec = replace(ColourEncoder.spec, name="second")

    ingest(photos, target, encoders=[ColourEncoder(), Second()])
    after = ids(target)
    assert len(after) == PHOTOS
    assert after[str(photos / "moved.png")] == before[str(photos / "0000.png")]
    assert all(row["vector_second"] for row in rows(target).values())


def test_a_file_that_became_a_folder_or_a_link_is_gone(photos, target):
    run(photos, target)
    for name, make in (("0000.png", os.mkdir), ("0001.png", lambda p: os.symlink("/", p))):
        (photos / name).unlink()
        make(photos / name)
    assert counts(run(photos, target, prune=True)) == {"skipped": PHOTOS - 2, "removed": 2}


def test_a_failure_that_was_not_looked_at_again_stays(photos, target):
    (photos / "0005.png").write_bytes(b"nothing")
    run(photos, target)
    run(photos, target, include=["0001.png"])
    assert retrieval.open(target).store.failures().num_rows == 1


def test_a_type_that_is_not_stored_is_refused(photos, target):
    run(photos, target)
    with pytest.raises(CollectionError, match="stores float32, not float16"):
        run(photos, target, dtype="float16")
    with pytest.raises(CollectionError, match="int8"):
        run(photos, target.with_name("new"), dtype="int8")


def test_a_string_where_a_list_belongs_is_an_error(photos, target):
    with pytest.raises(SourceError, match="lists"):
        run(photos, target, exclude="*.png")
    with pytest.raises(EncoderError, match="list"):
        ingest(photos, target, encoders="pocket-visual")
    with pytest.raises(SourceError, match="empty"):
        run("", target)
    assert not target.exists()


def test_a_dry_run_with_another_encoder_adds_no_space(photos, target):
    run(photos, target)

    class Second(ColourEncoder):
        spec = replace(ColourEncoder.spec, name="second")

    report = ingest(photos, target, encoders=[ColourEncoder(), Second()], dry_run=True)
    assert counts(report) == {"updated": PHOTOS, "encoded": PHOTOS}
    assert list(retrieval.open(target).spaces) == ["colour"]


def test_two_processes_may_make_and_fill_one_collection_at_once(photos, target):
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: run(photos, target), range(3)))
    assert len(rows(target)) == PHOTOS
    assert all(report.added + report.updated + report.skipped == PHOTOS for report in reports)


def test_a_row_with_a_file_of_its_own_labels_no_namesake(tmp_path, target):
    write_pictures(tmp_path / "in" / "a", 1)
    write_pictures(tmp_path / "in" / "b", 2)
    csv = tmp_path / "in" / "facts.csv"
    csv.write_text("file,label\na/0000.png,mine\nmoved/0001.png,found by name\n")
    run(tmp_path / "in", target, labels=f"{csv}:label")
    labels = {uri.rsplit("in/", 1)[1]: row["label"] for uri, row in rows(target).items()}
    assert labels == {"a/0000.png": "mine", "b/0000.png": None, "b/0001.png": "found by name"}
