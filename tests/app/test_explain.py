"""Maps that tell why an image matched, as people and scripts get them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import retrieval
from app.heat import RAMP, drawing, overlay, strongest
from app.main import app
from indexers import ingest
from retrieval.errors import QueryError
from retrieval.query.explain import Explanation, View
from tests.pictures import picture, write_pictures

KEYS = {
    *("image_id", "uri", "score", "space", "grid", "heat", "box", "strongest", "note"),
    "query_heat",
}


def run(*arguments: object) -> tuple[str, str]:
    """What the command prints to stdout and stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    write_pictures(folder / "photos", 3, suffix=".jpg")
    picture(3, (60, 20)).save(folder / "photos" / "wide.jpg")
    ingest(folder / "photos", folder / "c.lance")
    return retrieval.open(folder / "c.lance")


def id_of(collection, name: str) -> int:
    photos = os.path.join(os.path.dirname(collection.uri), "photos")
    return collection.store.find_uri(os.path.join(photos, name))


def view_of(image: Image.Image) -> View:
    return View(image, (0.0, 0.0, float(image.width), float(image.height)))


def explanation(collection, heat, view: View, **more) -> Explanation:
    record = collection.get(id_of(collection, "wide.jpg"))
    return Explanation(record, 0.5, "pocket-text", np.asarray(heat, np.float32), view, **more)


def test_words_are_drawn_where_people_look(collection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_id = id_of(collection, "wide.jpg")
    out, err = run("explain", image_id, "a red car", "-c", collection.uri, "--not", "a dog")
    why = collection.explain(image_id, "a red car", negative=["a dog"])
    assert f"score {why.score:.3f} in pocket-text" in out and "wide.jpg" in out
    assert f"strongest: {strongest(why)[0][0]} (" in out and "map: why.png" in err
    with Image.open("why.png") as drawn:
        assert drawn.size == (1008, 56 + 160 + 56)
    run("explain", image_id, "a dog", "-c", collection.uri, "--out", "other.webp")
    assert sorted(os.listdir()) == ["other.webp", "why.png"]


def test_json_has_the_map_and_draws_only_when_asked(collection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide, other = id_of(collection, "wide.jpg"), id_of(collection, "0001.jpg")
    words = json.loads(run("explain", wide, "a dog", "-c", collection.uri, "--json")[0])
    assert set(words) == KEYS and os.listdir() == []
    why = collection.explain(wide, "a dog")
    np.testing.assert_allclose(words["heat"], why.heat, atol=1e-6)
    assert words["grid"] == [7, 7] and words["query_heat"] is None and words["note"] == ""
    assert words["box"] == pytest.approx([1 / 3, 0, 2 / 3, 1])
    assert (words["image_id"], words["space"]) == (wide, "pocket-text")
    assert words["score"] == pytest.approx(why.score) and len(words["strongest"]) == 3
    command = ("explain", wide, "-c", collection.uri, "--id", other, "--json", "--out", "x.png")
    by_id = json.loads(run(*command)[0])
    assert by_id["space"] == "pocket-visual" and os.listdir() == ["x.png"]
    np.testing.assert_allclose(
        by_id["query_heat"], collection.explain(wide, query_id=other).query_heat, atol=1e-6
    )
    path = collection.get(other).uri
    by_path = json.loads(
        run("explain", wide, "-c", collection.uri, "--image", path, "--json",
            "--space", "pocket-text")[0]
    )  # fmt: skip
    assert by_path["space"] == "pocket-text" and by_path["query_heat"] is not None


def test_a_file_that_is_gone_is_said_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [photo] = write_pictures(tmp_path / "photos", 1)
    ingest(tmp_path / "photos", tmp_path / "c")
    photo.unlink()
    some = retrieval.open(tmp_path / "c").search("x")[0].image.image_id
    out, err = run("explain", some, "x", "-c", tmp_path / "c")
    assert "the file is gone" in err and "strongest" in out and (tmp_path / "why.png").exists()
    answer = json.loads(run("explain", some, "x", "-c", tmp_path / "c", "--json")[0])
    assert "the file is gone" in answer["note"]


def test_wrong_use_is_told_before_any_work(collection, tmp_path):
    with pytest.raises(QueryError, match=r"map\.foo"):
        run("explain", 1, "x", "-c", tmp_path / "none", "--out", "map.foo")
    with pytest.raises(QueryError, match="empty"):
        run("explain", id_of(collection, "wide.jpg"), "-c", collection.uri)


def test_the_strongest_part_is_named_as_people_see_it(collection):
    heat = np.zeros((7, 7))
    for (row, column), name in {
        (0, 0): "upper left", (3, 3): "centre", (6, 3): "lower middle", (3, 6): "right",
    }.items():  # fmt: skip
        hot = heat.copy()
        hot[row, column] = 1
        why = explanation(collection, hot, view_of(Image.new("RGB", (90, 60))))
        assert strongest(why)[0][0] == name and len(strongest(why)) == 9
    # In a wide picture the left edge of the middle square lies in the middle third.
    middle = View(Image.new("RGB", (90, 30)), (30.0, 0.0, 60.0, 30.0))
    hot = heat.copy()
    hot[0, 0] = 1
    parts = strongest(explanation(collection, hot, middle))
    assert parts[0][0] == "upper middle" and len(parts) == 3
    # What lies outside of a padded picture is no part of it.
    padded = View(Image.new("RGB", (90, 30)), (0.0, -30.0, 90.0, 60.0))
    assert len(strongest(explanation(collection, np.ones((3, 3)), padded))) == 3


def test_the_ramp_grows_lighter_in_even_steps():
    values = np.array(RAMP) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    cones = np.cbrt(linear @ np.array(to_cones).T)
    steps = np.diff(cones @ [0.2104542553, 0.7936177850, -0.0040720468])
    assert steps.min() > 0.08 and steps.max() < 0.10


def test_the_hottest_place_is_lit_and_what_was_not_seen_is_dark():
    gray = View(Image.new("RGB", (120, 60), (128, 128, 128)), (30.0, 0.0, 90.0, 60.0))
    heat = np.zeros((3, 3), np.float32)
    heat[2, 0] = 1
    pixels = np.asarray(overlay(gray, heat)).astype(int)
    assert pixels.shape == (240, 480, 3)
    light = pixels.sum(axis=2)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert 160 <= row < 240 and 120 <= column < 200
    assert light[:, :119].max() < 128 * 3 * 0.5 and light[:, 361:].max() < 128 * 3 * 0.5
    # Red minus blue: the hot end of the ramp is yellow, the cold one violet.
    assert pixels[200, 160, 0] > pixels[200, 160, 2] and pixels[20, 240, 2] > pixels[20, 240, 0]


def test_a_map_without_differences_is_drawn_as_one_colour():
    pixels = np.asarray(overlay(view_of(Image.new("RGB", (50, 50))), np.full((7, 7), 0.3)))
    assert np.unique(pixels.reshape(-1, 3), axis=0).shape == (1, 3)


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (480, 480)])
def test_pictures_of_any_size_can_be_drawn(collection, size):
    heat = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    view = View(Image.new("RGB", size), (left, top, left + side, top + side))
    why = explanation(collection, heat, view, query_heat=heat, query_view=view)
    assert drawing(why, "犬 \x1b[31m\n of\x00 any kind").width == 1008
