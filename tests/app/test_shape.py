"""`retrieval shape`, `subset`, `map` and what `status` says of their columns."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.main import app
from indexers import ingest
from tests.pictures import write_pictures

PHOTOS = 24


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=code != 0)
    assert (result.exit_code != 0) == (code != 0), result.output
    return result.stdout, str(result.exception or result.stderr)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape") / "photos"
    paths = write_pictures(folder, PHOTOS)
    shutil.copy(paths[0], folder / "twin.png")
    Image.new("RGB", (40, 30), "black").save(folder / "black.png")
    place = folder.parent / "c.lance"
    ingest(folder, place, labels="folder")
    return place


def test_shape_tells_people_what_there_is(collection):
    out, _ = run("shape", "-c", collection, "--only", "uniqueness", "--only", "quality")
    assert f"{PHOTOS + 2} images in pocket-visual" in out
    assert "have a near twin" in out and "1 dark" in out
    assert '--where "uniqueness < 0.1"' in out and "cluster" not in out
    found = json.loads(
        run("status", "-c", collection, "--where", "issues like '%dark%'", "--json")[0]
    )
    assert found["matching"] == 1
    assert found["made"][0]["name"] == "aspect" and found["made"][0]["outdated"] == 0
    out, _ = run("status", "-c", collection)
    assert "made by" in out and "uniqueness" in out


def test_shape_for_machines(collection, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("a dog\na black picture\na colourful pattern\n")
    arguments = ["shape", "-c", collection, "--clusters", 3, "--words", words, "--json"]
    found = json.loads(run(*arguments)[0])
    assert found["images"] == PHOTOS + 2 and found["near_twins"] >= 2
    assert sum(cluster["size"] for cluster in found["clusters"]) == PHOTOS + 2
    assert {c["name"] for c in found["clusters"]} == set(words.read_text().splitlines())
    made = json.loads(run("status", "-c", collection, "--json")[0])["made"]
    assert {m["parameters"].get("names") for m in made} >= {"words.txt in pocket-text"}


def test_subset_prints_paths_and_writes_a_column(collection):
    out, _ = run("subset", "-c", collection, "-n", 5, "--paths", "--column", "few")
    assert len(set(out.splitlines())) == 5
    found = json.loads(run("subset", "-c", collection, "-n", 5, "--json")[0])["images"]
    assert [image["uri"] for image in found] == out.splitlines()
    status = json.loads(run("status", "-c", collection, "--where", "few = true", "--json")[0])
    assert status["matching"] == 5
    assert out.splitlines()[0] in run("subset", "-c", collection, "-n", 1)[0]
    _, said = run("subset", "-c", collection, "-n", 99, code=1)
    assert "cannot pick 99 of 26" in said


def test_map_draws_a_picture(collection, tmp_path):
    picture = tmp_path / "map.png"
    arguments = ["map", "-c", collection, "--method", "pca", "--picture", picture, "--json"]
    found = json.loads(run(*arguments)[0])
    assert found["images"] == found["drawn"] == PHOTOS + 2 and found["method"] == "pca"
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 100
    _, said = run("map", "-c", collection, "--picture", "map.doc", code=1)
    assert ".png" in said
