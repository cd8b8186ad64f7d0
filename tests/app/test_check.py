"""`retrieval check`: known, new and broken pictures, for people and for machines."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.main import app
from indexers import ingest
from tests.planted import originals

RUNNER = CliRunner()


def run(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos, and its collection."""
    root = tmp_path_factory.mktemp("check")
    originals(root / "photos")
    ingest(root / "photos", root / "c", encoders=["pocket-visual"])
    return root


def test_known_pictures_are_told_from_new_ones(made, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "new.png")
    known = made / "photos" / "cat.jpg"
    given = ("check", known, tmp_path / "new.png", "-c", made / "c", "--threshold", 0.3)
    first, second = json.loads(run(*given, "--json"))["results"]
    keys = {"path", "found", "tier", "score", "why", "collection", "uri", "error"}
    assert set(first) == set(second) == keys
    assert (first["found"], first["tier"], first["uri"]) == (True, "exact", str(known))
    assert (second["found"], second["tier"], second["uri"]) == (False, None, None)
    assert first["error"] is second["error"] is None
    said = run(*given)
    assert "same bytes" in said and "new.png  new" in said


def test_a_broken_picture_is_named_and_the_others_are_answered(made, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    known = made / "photos" / "cat.jpg"
    pictures = [tmp_path / "broken.jpg", known, tmp_path / "nothing.jpg"]
    given = ("check", *pictures, "-c", made / "c", "--threshold", 0.3)
    broken, there, missing = json.loads(run(*given, "--json", code=1))["results"]
    assert there["tier"] == "exact" and there["error"] is None
    assert broken["error"] and not broken["found"]
    assert "no such file" in missing["error"]
    lines = run(*given, code=1).splitlines()
    assert "broken.jpg" in lines[1] and "  error  " in lines[1] and "same bytes" in lines[2]


def test_names_that_are_no_text_are_valid_json(made, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/q\xff.jpg")
    shutil.copy(made / "photos" / "cat.jpg", odd)
    for path, code in ((odd, 0), (odd + "x", 1)):
        [one] = json.loads(run("check", path, "-c", made / "c", "--json", code=code).encode())[
            "results"
        ]
        assert one["path"].startswith("file:///") and "q%FF.jpg" in one["path"]
        assert one["found"] == (code == 0)
