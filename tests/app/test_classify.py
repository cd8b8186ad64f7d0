"""`retrieval classify` and `retrieval evaluate knn`."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.main import app
from indexers import ingest
from tests.pictures import write_pictures

PHOTOS = 60


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=code != 0)
    assert (result.exit_code != 0) == (code != 0), result.output
    return result.stdout, str(result.exception or result.stderr)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify") / "photos"
    paths = write_pictures(folder, PHOTOS)
    lines = [f"{path.name},{'even' if i % 2 else 'odd'}" for i, path in enumerate(paths[:-4])]
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def collection(photos):
    place = photos.parent / "c.lance"
    ingest(photos, place, encoders=["pocket-visual"], labels=f"{photos / 'labels.csv'}:label")
    return place


def test_pictures_are_classified_for_machines(collection, photos):
    paths = sorted(photos.glob("*.*"))[:1] * 2
    found = json.loads(run("classify", *paths, "-c", collection, "-k", 5, "--json")[0])
    assert found["exemplars"] == PHOTOS - 4 and found["unlabelled"] == 4 and found["k"] == 5
    for one in found["predictions"]:
        assert one["uri"] == str(paths[0]) and one["label"] in ("even", "odd")
        assert 0 < one["confidence"] <= 1 and one["abstained"] == bool(one["reason"])
        assert len(one["neighbors"]) == 5 and one["neighbors"][0]["score"] > 0.99
    assert found["calibration"]["sample"] == PHOTOS - 4


def test_pictures_are_classified_for_people(collection, photos):
    path = sorted(photos.glob("*.*"))[0]
    out, err = run("classify", path, "-c", collection, "--where", "label is not null")
    assert str(path) in out and "most like" in out
    assert f"by 20 neighbours of {PHOTOS - 4} exemplars in pocket-visual" in err


def test_stored_images_get_columns_only_with_apply(collection):
    arguments = ["classify", "-c", collection, "--stored", "label is null", "--json"]
    found = json.loads(run(*arguments)[0])
    assert len(found["predictions"]) == 4
    where = ["status", "-c", collection, "--where", "predicted_label is not null", "--json"]
    assert "predicted_label" in run(*where, code=1)[1]
    assert json.loads(run(*arguments, "--apply")[0])["predictions"] == found["predictions"]
    status = json.loads(run(*where)[0])
    assert status["matching"] == 4
    assert {m["made_by"] for m in status["made"]} == {"classify"}


def test_leave_one_out_for_people_and_machines(collection):
    out, err = run("evaluate", "knn", "-c", collection, "-k", 5)
    assert "balanced accuracy" in out and "precision" in out and "best: k = " in out
    assert "4 images have no label" in err
    found = json.loads(run("evaluate", "knn", "-c", collection, "-k", 5, "--json")[0])
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert f"{found['accuracy']['value']:.3f}" in out
    assert sum(map(sum, found["confusion"])) == PHOTOS - 4
    assert {each["label"] for each in found["classes"]} == {"even", "odd"}
    assert found["probe"] is None


def test_a_second_opinion_is_asked_for(collection):
    found = json.loads(run("evaluate", "knn", "-c", collection, "--probe", "--json")[0])
    assert found["probe"]["exemplars"] == PHOTOS - 4 and 0 <= found["probe"]["accuracy"] <= 1
    assert "a linear classifier" in run("evaluate", "knn", "-c", collection, "--probe")[0]


def test_errors_name_the_way_out(collection, photos, tmp_path):
    path = sorted(photos.glob("*.*"))[0]
    for arguments, said in (
        ([], "--stored"),
        ([path, "--stored", "width > 1"], "--stored"),
        ([path, "--apply"], "--apply"),
        ([path, "--labels", "colour"], "no column 'colour'"),
        ([path, "--where", "label = 'odd'"], "only the class 'odd'"),
        ([path, "--where", "label is null"], "have no label"),
        ([path, "--temperature", 0], "above 0"),
        ([tmp_path / "none.jpg"], "none.jpg"),
    ):
        for more in ([], ["--json"]):
            out, err = run("classify", *arguments, "-c", collection, *more, code=1)
            assert said in err and not out
    (tmp_path / "empty").mkdir()
    ingest(tmp_path / "empty", tmp_path / "e.lance", encoders=["pocket-visual"])
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for command in (["classify", tmp_path / "a.png"], ["evaluate", "knn"]):
        assert "no image to learn from" in run(*command, "-c", tmp_path / "e.lance", code=1)[1]
