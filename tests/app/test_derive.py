"""`retrieval derive` as a person and a script use it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import retrieval
from app.main import app
from indexers import ingest
from retrieval.errors import EncoderError
from tests.pictures import write_pictures

PHOTOS = 24


def run(*arguments: object, code: int = 0):
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("derive") / "photos"
    write_pictures(folder, PHOTOS)
    return folder


@pytest.fixture(scope="module")
def collection(photos):
    place = photos.parent / "c.lance"
    ingest(photos, place)
    return place


def test_a_space_is_derived_told_and_searched(collection, photos):
    derive = ("derive", "-c", collection, "--space", "pocket-visual")
    out, err = run(*derive, "--pca", 8)
    assert f"pocket-visual-pca8: pca of pocket-visual, 8 × {PHOTOS} vectors" in out
    assert "--space pocket-visual-pca8" in err
    facts = json.loads(run(*derive, "--whiten", 8, "--name", "white", "--json")[0])
    version = retrieval.open(collection).version
    assert facts == {
        "space": "white",
        "base": "pocket-visual",
        "kind": "whiten",
        "dim": 8,
        "vectors": PHOTOS,
        "version": version,
    }
    again = json.loads(run(*derive, "--whiten", 8, "--name", "white", "--json")[0])
    assert again == facts  # nothing to do
    shown = run("status", "-c", collection)[0]
    assert "pca-8 of pocket-visual" in shown and "whiten-8 of pocket-visual" in shown
    photo = sorted(photos.iterdir())[3]
    by_image = ("search", "-c", collection, "--image", photo, "--json")
    found = json.loads(run(*by_image, "--space", "white")[0])
    assert found["space"] == "white" and found["hits"][0]["uri"] == str(photo)
    assert json.loads(run(*by_image)[0])["space"] == "pocket-visual"


def test_words_are_answered_and_maps_point_to_the_base(collection):
    run("derive", "-c", collection, "--space", "pocket-text", "--truncate", 64)
    opened = retrieval.open(collection)
    words = opened.search("a red car", space="pocket-text-first64", k=PHOTOS)
    vectors = opened.store.vectors_of("pocket-text", [hit.image.image_id for hit in words])
    query = opened.encoder("pocket-text").encode_texts(["a red car"])[0, :64]
    rows = vectors[:, :64]
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose([hit.score for hit in words], cosines, atol=1e-5)
    assert opened.search("a red car").space == "pocket-text"
    with pytest.raises(EncoderError, match=r"explain in the space pocket-text$"):
        opened.explain(words[0].image.image_id, "a red car", space="pocket-text-first64")


@pytest.mark.parametrize("sizes", [(), ("--pca", "8", "--whiten", "8")])
def test_exactly_one_transform_is_asked_for(collection, sizes):
    _, err = run("derive", "-c", collection, "--space", "pocket-visual", *sizes, code=2)
    assert "--pca DIM" in err
