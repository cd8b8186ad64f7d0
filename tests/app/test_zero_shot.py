"""`retrieval classify --zero-shot` and `retrieval mislabels`."""

from __future__ import annotations

import json

import pytest
import skimage.data
from PIL import Image, ImageOps
from typer.testing import CliRunner

from app.commands.zero_shot import labels_of
from app.main import app
from retrieval.errors import QueryError, SourceError

PHOTOS = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}


def run(*arguments: object) -> str:
    """What the command prints to stdout; an error of the project is raised as it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos, some of them cut and mirrored, by folder, and their collection."""
    root = tmp_path_factory.mktemp("zero")
    for label, name in PHOTOS.items():
        folder = root / "photos" / label
        folder.mkdir(parents=True)
        whole = Image.fromarray(getattr(skimage.data, name)())
        width, height = whole.size
        for number in range(6):
            edge = 6 * number
            part = whole.crop((edge, edge, width - edge, height - edge))
            part = ImageOps.mirror(part) if number % 2 else part
            part.save(folder / f"{number}.png")
    (root / "photos" / "cat" / "5.png").replace(root / "photos" / "rocket" / "odd.png")
    run("index", root / "photos", "-c", root / "c", "--labels", "folder")
    return root


def test_the_collection_is_named_as_json_table_and_sheet(made, tmp_path):
    given = ("classify", "-c", made / "c", "--zero-shot", "cat,cup of coffee,rocket,astronaut")
    found = json.loads(run(*given, "--json", "--sheet", tmp_path / "s.png"))
    assert found["classes"] == ["cat", "cup of coffee", "rocket", "astronaut"]
    assert len(found["predictions"]) == 24 and found["scale"] == 20
    for each in found["predictions"]:
        assert {"uri", "label", "confidence", "abstained", "neighbors"} <= set(each)
        assert len(each["neighbors"]) == 3
    for word in ("cat", "coffee"):
        own = [each["label"] for each in found["predictions"] if f"/{word}/" in each["uri"]]
        assert sum(word in label for label in own) >= len(own) - 1
    for pair in found["disagreements"]:
        alike = pair["a"]["label"] == pair["b"]["label"]
        assert alike == (pair["kind"] == "named alike")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 300
    said = run(*given)
    assert "cup of coffee" in said and "images" in said


def test_pictures_are_named_beside_their_nearest(made, tmp_path):
    path = made / "photos" / "cat" / "0.png"
    given = ("classify", path, "-c", made / "c", "--zero-shot", "cat", "--zero-shot", "rocket")
    [found] = json.loads(run(*given, "--json"))["predictions"]
    assert found["label"] == "cat" and found["uri"] == str(path)
    assert found["neighbors"][0]["uri"] == str(path)
    assert "cat" in run(*given, "--multi-label", "--sheet", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 600


def test_apply_writes_columns(made):
    run("classify", "-c", made / "c", "--zero-shot", "cat,rocket", "--apply", "--json")
    status = json.loads(run("status", "-c", made / "c", "--where", "zero_shot = 'cat'", "--json"))
    assert 0 < status["matching"] < 24


def test_labels_with_commas(tmp_path):
    assert labels_of(["a,b, c"]) == ["a", "b", " c"]
    assert labels_of(["red, white", "blue"]) == ["red, white", "blue"]
    (tmp_path / "l.txt").write_text("red, white\n\nblue\n")
    assert labels_of([f"@{tmp_path / 'l.txt'}"]) == ["red, white", "blue"]
    with pytest.raises(SourceError, match="cannot read labels"):
        labels_of(["@/nowhere"])


def test_wrong_use_is_refused(made):
    with pytest.raises(QueryError, match="only label"):
        run("classify", "-c", made / "c", "--zero-shot", "cat")
    with pytest.raises(QueryError, match="no label"):
        run("classify", "-c", made / "c", "--zero-shot", ",")
    with pytest.raises(QueryError, match="go with --zero-shot"):
        run("classify", "x.jpg", "-c", made / "c", "--templates", "plain")
    with pytest.raises(QueryError, match="give one"):
        filters = ("--where", "width > 1", "--stored", "width > 2")
        run("classify", "-c", made / "c", "--zero-shot", "a,b", *filters)
    with pytest.raises(QueryError, match="imagenet-80"):
        run("classify", "-c", made / "c", "--zero-shot", "a,b", "--templates", "none")


def test_a_wrong_label_is_found(made, tmp_path):
    given = ("mislabels", "-c", made / "c", "--labels", "label")
    found = json.loads(run(*given, "--apply", "--sheet", tmp_path / "s.png", "--json"))
    [issue] = found["issues"]
    assert issue["uri"].endswith("odd.png") and found["images"] == 24
    assert (issue["given"], issue["suggested"]) == ("rocket", "cat")
    assert {near["label"] for near in issue["neighbors"]} == {"cat"}
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 600
    said = run(*given)
    assert "1 of 24 labels in 'label' are likely wrong" in said and "odd.png" in said
    status = ("status", "-c", made / "c", "--where", "label_suggested = 'cat'", "--json")
    assert json.loads(run(*status))["matching"] == 1
    with pytest.raises(QueryError, match="no column 'kind'"):
        run("mislabels", "-c", made / "c", "--labels", "kind")
