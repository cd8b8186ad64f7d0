"""`retrieval export` as a person and a script use it."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import retrieval
from app.main import app
from indexers import ingest
from retrieval.errors import ExportError
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures

KEYS = {"form", "out", "images", "skipped", "removed", "refused", "folders"}


def run(*arguments: object, code: int = 0):
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.fixture
def collection(tmp_path):
    for label in ("cat", "dog"):
        write_pictures(tmp_path / "photos" / label, 3, start=len(label) * 10 + (label == "dog"))
    place = tmp_path / "c.lance"
    made = retrieval.open(place, create=True, encoders=[ColourEncoder()])
    ingest(tmp_path / "photos", made, labels="folder")
    return place


def test_the_ending_says_the_form(collection, tmp_path):
    for name, form in (
        ("a.parquet", "parquet"),
        ("a.CSV", "csv"),
        ("a.json", "coco"),
        ("a", "folder"),
    ):
        report = json.loads(run("export", "-c", collection, tmp_path / name, "--json")[0])
        assert set(report) == KEYS
        assert (report["form"], report["images"], report["refused"]) == (form, 6, [])
        assert report["out"] == str(tmp_path / name)
    assert {len(os.listdir(tmp_path / "a" / label)) for label in ("cat", "dog")} == {3}
    run("export", "-c", collection, tmp_path / "b", "--format", "csv")
    assert (tmp_path / "b").read_text() == (tmp_path / "a.CSV").read_text()


def test_filters_and_vectors(collection, tmp_path):
    out = tmp_path / "dogs.parquet"
    chosen = ("--where", "label = 'dog'", "--space", "colour")
    said, _ = run("export", out, "-c", collection, *chosen)
    assert said == f"{out}: 3 images as parquet\n"
    table = pq.read_table(out)
    assert set(table["label"].to_pylist()) == {"dog"}
    assert table.schema.metadata[b"where"] == b"label = 'dog'"
    assert len(table["vector_colour"][0]) == ColourEncoder.spec.dim


def test_what_is_left_out_is_told_and_fails(collection, tmp_path):
    gone = sorted((tmp_path / "photos" / "cat").iterdir())[0]
    gone.unlink()
    linked = ("export", tmp_path / "out", "-c", collection, "--link", "symbolic")
    said, noted = run(*linked, code=1)
    assert "5 images as folder" in said and f"left out: {gone}: gone" in noted
    report = json.loads(run(*linked, "--json", code=1)[0])
    assert (report["images"], report["skipped"]) == (5, 5)
    assert report["refused"] == [{"uri": str(gone), "reason": "gone"}]


def test_an_unknown_ending_wants_a_format(collection, tmp_path):
    with pytest.raises(ExportError, match="--format"):
        run("export", tmp_path / "z.txt", "-c", collection)
    assert not (tmp_path / "z.txt").exists()
    run("export", tmp_path / "v1.2", "-c", collection, "--format", "folder")
    where = ("--where", "label = 'dog'")
    _, noted = run("export", tmp_path / "v1.2", "-c", collection, *where)  # it is there now
    assert "3 files of earlier exports were removed" in noted


def test_wrong_usage_is_an_error(collection, tmp_path):
    for wrong in (("--format", "xml"), ("--link", "soft"), ("--space", "colour")):
        with pytest.raises(ExportError):
            run("export", tmp_path / "out", "-c", collection, *wrong)
