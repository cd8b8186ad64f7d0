"""What is exported is what the collection holds, and what other readers make of it."""

from __future__ import annotations

import csv
import errno
import json
import os
import unicodedata
from datetime import datetime
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

import retrieval
from indexers import ingest
from retrieval.errors import ExportError, FilterError, QueryError, UnknownSpace
from retrieval.query.export import export, image_folder, selection
from retrieval.query.export.mark import MARK
from retrieval.query.export.names import folder_names, safe
from retrieval.uris import uri_of
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture

ODD = os.fsdecode(b"d/caf\xe9\n.png")
LABELS = {  # by file
    "a/one.png": "dress",
    "a/two.png": "dress",
    "b/one.png": "dress",
    "b/two.png": "../up",
    "c/three.png": "=1+1",
    ODD: 'quote " and, comma',
    "d/plain.png": None,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(LABELS):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed, (40 + seed, 30)).save(os.fsencode(path), "PNG")
        os.utime(path, ns=(1, 1_600_000_000_123_456_789 + seed))
    return tmp_path / "photos"


@pytest.fixture
def collection(folder, tmp_path):
    made = retrieval.open(tmp_path / "c.lance", create=True, encoders=[ColourEncoder()])
    ingest(folder, made)
    store = made.store
    store.add_columns(pa.schema([("price", pa.float64()), ("sold", pa.bool_())]))
    rows = []
    for number, (name, label) in enumerate(LABELS.items()):
        rows.append(
            {
                "image_id": id_of(made, folder, name),
                "label": label,
                "tags": ["new", "red"] if number == 0 else None,
                "price": 1.5 if number == 1 else None,
                "captured_at": datetime(2024, 5, 6, 7, 8, 9) if number == 2 else None,
                "metadata": json.dumps({"make": "Canon"}) if number == 3 else None,
            }
        )
    store.update(pa.Table.from_pylist(rows))
    return made


def id_of(collection, folder: Path, name: str) -> int:
    found = collection.store.find_uri(uri_of(str(folder / name)))
    assert found is not None
    return found


def records(collection) -> list:
    return [collection.get(image_id) for image_id in collection.store.ids().tolist()]


def test_parquet_holds_every_record_and_says_where_it_is_from(collection, tmp_path):
    out, progress = tmp_path / "new" / "all.parquet", []
    report = export(
        collection,
        out,
        form="parquet",
        spaces=["colour"],
        tell=lambda *n: progress.append(n),
    )
    assert (report.images, report.out, report.form) == (len(LABELS), str(out), "parquet")
    assert progress[-1] == (len(LABELS), len(LABELS))
    table = pq.read_table(out)
    assert {k.decode(): v.decode() for k, v in table.schema.metadata.items()} == {
        "collection": collection.uri,
        "collection_id": collection.store.collection_id,
        "version": str(collection.version),
        "where": "",
    }
    for row, record in zip(table.to_pylist(), records(collection), strict=True):
        assert row["metadata"] == (None if "make" not in record.metadata else '{"make":"Canon"}')
        assert row["price"] == record.metadata.get("price") and row["sold"] is None
        assert tuple(row["tags"] or ()) == record.tags
        for name in ("image_id", "uri", "content_hash", "width", "height", "format", "label"):
            assert row[name] == getattr(record, name)
        assert (row["size_bytes"], row["split"]) == (record.size_bytes, record.split)
        assert row["captured_at"] == record.captured_at
    vectors = np.array(table["vector_colour"].to_pylist(), np.float32)
    np.testing.assert_array_equal(
        vectors, collection.store.vectors_of("colour", table["image_id"].to_numpy())
    )
    assert "thumbnail" not in table.column_names and os.listdir(out.parent) == [out.name]


def test_csv_reads_back(collection, tmp_path):
    export(collection, tmp_path / "all.csv", form="csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, records(collection), strict=True):
        assert (int(row["image_id"]), row["uri"]) == (record.image_id, record.uri)
        assert row["label"] == (record.label or "")
        assert row["tags"] == ";".join(record.tags)
        assert json.loads(row["metadata"] or "{}").get("make") == record.metadata.get("make")
        assert (row["price"] or None) == (None if "price" not in record.metadata else "1.5")


def test_coco_reads_back(collection, tmp_path):
    export(collection, tmp_path / "all.json", form="coco")
    coco = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert coco["info"]["collection"] == collection.uri
    names = {category["id"]: category["name"] for category in coco["categories"]}
    labels = sorted({label for label in LABELS.values() if label})
    assert names == dict(enumerate(labels, 1))
    known = {record.image_id: record for record in records(collection)}
    assert [image["id"] for image in coco["images"]] == list(known)
    for image in coco["images"]:
        record = known[image["id"]]
        assert (image["file_name"], image["width"], image["height"]) == (
            record.uri,
            record.width,
            record.height,
        )
        assert image["date_captured"] == ("2024-05-06 07:08:09" if record.captured_at else "")
    told = {note["image_id"]: names[note["category_id"]] for note in coco["annotations"]}
    assert told == {r.image_id: r.label for r in known.values() if r.label is not None}
    assert [note["id"] for note in coco["annotations"]] == list(range(1, len(told) + 1))
    for note in coco["annotations"]:
        width, height = known[note["image_id"]].width, known[note["image_id"]].height
        assert note["bbox"] == [0, 0, width, height] and note["area"] == width * height
        assert note["iscrowd"] == 0


def test_filters_ids_and_both(collection, tmp_path):
    ids = collection.store.ids("label = 'dress'").tolist()

    def exported(**chosen) -> list[int]:
        export(collection, tmp_path / "some.parquet", form="parquet", **chosen)
        return pq.read_table(tmp_path / "some.parquet")["image_id"].to_pylist()

    assert exported(where="label = 'dress'") == ids
    assert exported(ids=ids[::-1] + ids[:1]) == ids
    assert exported(ids=ids[:2], where="width > 40") == [
        i for i in ids[:2] if collection.get(i).width > 40
    ]
    assert exported(ids=[]) == [] and exported(where="width > 9999") == []
    with pytest.raises(QueryError, match="no image"):
        exported(ids=[12345])
    with pytest.raises(FilterError):
        exported(where="nonsense = 1")
    for form in ("csv", "coco", "folder"):  # an empty export is one too
        out = tmp_path / f"empty-{form}"
        assert export(collection, out, form=form, ids=[]).images == 0 and out.exists()
    assert json.loads((tmp_path / "empty-coco").read_text())["images"] == []


def test_blocks_join_without_a_seam(collection, tmp_path, monkeypatch):
    forms = ("parquet", "csv", "coco")

    def texts() -> list[str]:
        for form in forms:
            export(collection, tmp_path / form, form=form)
        table = pq.read_table(tmp_path / "parquet")
        return [str(table.to_pylist()), *((tmp_path / form).read_text() for form in forms[1:])]

    whole = texts()
    monkeypatch.setattr(selection, "_BLOCK_ROWS", 2)
    assert texts() == whole


def classes(out: Path) -> dict[str, list[str]]:
    """The folder as torchvision's ImageFolder sees it: classes are folders, files are below."""
    found = {}
    for entry in sorted(out.iterdir()):
        if entry.is_dir():
            walked = os.walk(entry)
            found[entry.name] = sorted(name for _, _, names in walked for name in names)
    return found


@pytest.mark.parametrize("link", ["copy", "hard", "symbolic"])
def test_a_folder_has_the_files_by_label(collection, folder, tmp_path, link):
    out = tmp_path / "out"
    report = export(collection, out, form="folder", link=link)
    assert (report.images, report.skipped, report.refused) == (len(LABELS), 0, [])
    found = classes(out)
    assert report.folders == {
        "../up": safe("../up"),
        'quote " and, comma': safe('quote " and, comma'),
    }
    assert set(found) == {"dress", "=1+1", "unlabelled", *report.folders.values()}
    ids = [id_of(collection, folder, name) for name in ("a/one.png", "b/one.png")]
    assert found["dress"] == sorted(["one.png", f"one-{max(ids)}.png", "two.png"])
    assert found["unlabelled"] == ["plain.png"]
    for name in LABELS:
        source = folder / name
        copies = [path for path in out.rglob("*.png") if path.read_bytes() == source.read_bytes()]
        assert len(copies) == 1
        assert copies[0].stat().st_mtime_ns == source.stat().st_mtime_ns
        assert copies[0].is_symlink() == (link == "symbolic")
        assert copies[0].samefile(source) == (link != "copy")
    again = export(collection, out, form="folder", link=link)
    assert (again.images, again.skipped, again.refused) == (len(LABELS), len(LABELS), [])
    assert classes(out) == found


def test_splits_are_a_level_of_their_own(collection, folder, tmp_path):
    ids = [id_of(collection, folder, name) for name in ("a/one.png", "a/two.png")]
    collection.store.update(pa.table({"image_id": ids, "split": ["train", "a/b"]}))
    report = export(collection, tmp_path / "out", form="folder", where="label = 'dress'")
    assert report.folders == {"a/b": "a_b"}
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")}
    assert files == {"train/dress/one.png", "a_b/dress/two.png", "unsplit/dress/one.png"}


def test_what_is_gone_or_changed_is_told_and_stops_nothing(collection, folder, tmp_path):
    (folder / "a/one.png").unlink()
    (folder / "a/two.png").write_bytes(b"other")
    (folder / "b/one.png").unlink()
    (folder / "b/one.png").symlink_to(folder / "b/two.png")
    for link in ("copy", "symbolic"):
        report = export(collection, tmp_path / link, form="folder", link=link)
        assert report.images == len(LABELS) - 3
        reasons = {Path(uri).relative_to(folder).as_posix(): why for uri, why in report.refused}
        assert reasons["a/one.png"] == "gone" and "changed" in reasons["a/two.png"]
        assert reasons["b/one.png"] == "no file any more" and len(reasons) == 3
        json.dumps(report.as_json())
        assert "dress" not in classes(tmp_path / link) or classes(tmp_path / link)["dress"] == []


def test_nothing_of_anybody_else_is_overwritten(collection, folder, tmp_path):
    out = tmp_path / "out"
    export(collection, out, form="folder", ids=[])
    mine = out / "dress" / "two.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    export(collection, out, form="folder")
    added = f"two-{id_of(collection, folder, 'a/two.png')}.png"
    assert mine.read_bytes() == b"mine" and added in classes(out)["dress"]
    (out / "dress" / added).write_bytes(b"mine too")
    report = export(collection, out, form="folder")
    assert report.images == len(LABELS) - 1 and "another file" in report.refused[0][1]
    assert (out / "dress" / added).read_bytes() == b"mine too" and len(report.refused) == 1


def test_a_file_of_ours_that_is_damaged_is_told_and_not_doubled(collection, tmp_path):
    out = tmp_path / "out"
    export(collection, out, form="folder")
    before = classes(out)
    (out / "dress" / "two.png").write_bytes(b"")
    report = export(collection, out, form="folder")
    assert "delete" in report.refused[0][1] and classes(out) == before
    (out / "dress" / "two.png").unlink()
    assert not export(collection, out, form="folder").refused and classes(out) == before


@pytest.mark.parametrize("link", ["copy", "hard", "symbolic"])
def test_an_export_that_is_repeated_becomes_what_is_asked_for(collection, folder, tmp_path, link):
    out = tmp_path / "out"
    export(collection, out, form="folder", link=link)
    (out / "dress" / "notes.txt").write_text("mine")
    ids = [id_of(collection, folder, name) for name in ("a/two.png", "b/two.png")]
    collection.store.update(pa.table({"image_id": ids[:1], "label": ["shoe"]}))
    collection.delete(ids[1:])
    report = export(collection, out, form="folder", link=link)
    assert (report.removed, report.refused) == (2, [])
    found = classes(out)
    assert found["shoe"] == ["two.png"] and safe("../up") not in found
    assert "two.png" not in found["dress"] and "notes.txt" in found["dress"]
    (out / "dress" / "notes.txt").unlink()
    export(collection, tmp_path / "clean", form="folder", link=link)
    assert classes(out) == classes(tmp_path / "clean")


def test_what_may_be_the_last_copy_is_not_removed(collection, folder, tmp_path):
    out = tmp_path / "out"
    export(collection, out, form="folder")
    collection.delete([id_of(collection, folder, name) for name in ("c/three.png", "a/two.png")])
    (folder / "c/three.png").unlink()
    (out / "dress" / "two.png").write_bytes(b"edited")
    for _ in range(2):
        report = export(collection, out, form="folder")
        reasons = {Path(uri).name: reason for uri, reason in report.refused}
        assert "original is gone" in reasons["three.png"] and "changed" in reasons["two.png"]
        assert report.removed == 0 and (out / "=1+1" / "three.png").exists()


def test_labels_that_differ_in_case_only_move_their_files(collection, folder, tmp_path):
    out = tmp_path / "out"
    export(collection, out, form="folder", where="label = 'dress'")
    ids = collection.store.ids("label = 'dress'").tolist()
    collection.store.update(pa.table({"image_id": ids, "label": ["Dress"] * len(ids)}))
    report = export(collection, out, form="folder", where="label = 'Dress'")
    if report.removed:  # the file system tells them apart
        assert set(classes(out)) == {"Dress"}
    assert report.refused == [] and sum(map(len, classes(out).values())) == len(ids)


def test_a_file_that_comes_between_is_not_overwritten(collection, folder, tmp_path, monkeypatch):
    theirs = tmp_path / "out" / "dress" / "two.png"
    real = image_folder.content_hash

    def late(data: bytes) -> str:
        theirs.write_bytes(b"theirs")
        return real(data)

    monkeypatch.setattr(image_folder, "content_hash", late)
    ids = [id_of(collection, folder, "a/two.png")]
    report = export(collection, tmp_path / "out", form="folder", ids=ids)
    assert os.strerror(errno.EEXIST) in report.refused[0][1]
    assert theirs.read_bytes() == b"theirs" and len(list(theirs.parent.iterdir())) == 1


def test_one_file_that_cannot_be_written_stops_no_other(collection, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(collection, out, form="folder", ids=[])
    (out / "dress").write_text("in the way")
    report = export(collection, out, form="folder")
    assert report.images == len(LABELS) - 3 and len(report.refused) == 3
    assert "cannot be written" in report.refused[0][1]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_folder.folders, "place", full)
    with pytest.raises(ExportError, match="make room"):
        export(collection, tmp_path / "full", form="folder")


def test_files_are_on_disk_before_they_have_their_name(collection, tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    export(collection, tmp_path / "out", form="folder")
    files = [path for path in (tmp_path / "out").rglob("*.png")]
    assert len(files) == len(LABELS) and {path.stat().st_ino for path in files} <= set(synced)


def test_an_export_among_the_pictures_is_not_indexed(collection, folder):
    known = len(collection)
    export(collection, folder / "out", form="folder")
    ingest(folder, collection)
    assert len(collection) == known


def test_only_a_new_folder_or_an_earlier_export_is_written_to(collection, folder, tmp_path):
    with pytest.raises(ExportError, match="not empty"):
        export(collection, folder, form="folder")
    other = retrieval.open(tmp_path / "o.lance", create=True, encoders=[ColourEncoder()])
    export(collection, tmp_path / "out", form="folder")
    with pytest.raises(ExportError, match="another collection"):
        export(other, tmp_path / "out", form="folder")
    (tmp_path / "out" / MARK).write_text("[]")
    with pytest.raises(ExportError, match="damaged"):
        export(collection, tmp_path / "out", form="folder")


def test_an_interrupted_export_goes_on(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "_BLOCK_ROWS", 2)
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(collection, out, form="folder", tell=stop)
    assert sum(map(len, classes(out).values())) == 4
    report = export(collection, out, form="folder")
    assert (report.images, report.skipped) == (len(LABELS), 4)
    export(collection, tmp_path / "clean", form="folder")
    assert classes(out) == classes(tmp_path / "clean")


@pytest.mark.parametrize("form", ["parquet", "csv", "coco"])
def test_an_interrupted_file_is_not_there(collection, tmp_path, form):
    out = tmp_path / "out" / "file"
    export(collection, out, form=form)
    before = out.read_bytes()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(collection, out, form=form, where="label = 'dress'", tell=stop)
    assert out.read_bytes() == before and os.listdir(out.parent) == ["file"]


@pytest.mark.parametrize("form", ["parquet", "csv", "coco", "folder"])
def test_a_place_that_cannot_be_written_is_told(collection, tmp_path, form):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written"):
        export(collection, tmp_path / "file" / "out", form=form)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_and_leaves_nothing(collection, tmp_path, monkeypatch):
    """The real error of a full device, at the place where a part of the export is written."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda n: "full")
    (tmp_path / "out" / ".full.part").symlink_to("/dev/full")
    with pytest.raises(ExportError, match=f"{os.strerror(errno.ENOSPC)}; make room"):
        export(collection, tmp_path / "out" / "all.json", form="coco")
    assert os.listdir(tmp_path / "out") == []


def test_arguments_that_do_not_go_together_are_refused(collection, tmp_path):
    out = tmp_path / "out"
    for wrong in (
        {"form": "xml"},
        {"form": "csv", "spaces": ["colour"]},
        {"form": "csv", "link": "hard"},
        {"form": "folder", "link": "soft"},
    ):
        with pytest.raises(ExportError):
            export(collection, out, **wrong)
    with pytest.raises(UnknownSpace):
        export(collection, out, form="parquet", spaces=["nothing"])
    export(collection, tmp_path / "twice", form="parquet", spaces=["colour", "colour"])
    assert pq.read_table(tmp_path / "twice").column_names.count("vector_colour") == 1
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export(collection, tmp_path / "dir.csv", form="csv")
    assert not out.exists()


LIKE_EACH_OTHER = [
    "con",
    "..",
    "a/b",
    "a_b",
    "Dress",
    "dress",
    "caf\u00e9",
    "cafe\u0301",
    "Unlabelled",
]


@given(st.sets(st.none() | st.text(max_size=12) | st.sampled_from(LIKE_EACH_OTHER)))
def test_every_label_is_a_folder_of_its_own(labels):
    names = folder_names(labels, "unlabelled")
    assert names.keys() == labels
    kept = [name for label, name in names.items() if label != "unlabelled"]
    others = [unicodedata.normalize("NFC", name.casefold()) for name in kept]
    assert len(set(others)) == len(others)
    for label, name in names.items():
        assert safe(name) == name and len(name.encode()) < 255
        assert not set(name) & set("/\\\0\n") and not name.startswith(".")
        if label is not None and safe(label) == label:
            assert name.startswith(label)
    assert folder_names({"dress", "a b"}, "unlabelled") == {"dress": "dress", "a b": "a b"}
