"""Quality facts by value on pictures that are what they are, and only where something changed."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

import retrieval
from indexers import ingest
from retrieval.images.thumbnails import thumbnail
from retrieval.query.curate.pixels import COLUMNS
from retrieval.query.curate.quality import ISSUES, Quality, issues, measure
from retrieval.store import Store
from retrieval.store.filters import compile_filter


def packed(pixels: np.ndarray) -> bytes:
    """Without loss, as no thumbnail is, so that values are exact."""
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()


def test_facts_are_those_of_the_pixels():
    half = np.zeros((40, 60, 3))
    half[:, 30:] = 255
    found = measure(packed(half), (600, 400))
    assert found.brightness == pytest.approx(0.5) and found.contrast == pytest.approx(0.5)
    assert found.information == pytest.approx(1.0) and found.uniform == pytest.approx(0.5)
    assert found.aspect == 1.5
    laplacian = np.zeros((38, 58))
    laplacian[:, 28], laplacian[:, 29] = 255, -255
    assert found.sharpness == pytest.approx(laplacian.var())
    ramp = np.repeat(np.arange(256)[None, :, None], 8, axis=0).repeat(3, axis=2)
    found = measure(packed(ramp), None)
    assert found.information == pytest.approx(8.0) and found.uniform == pytest.approx(1 / 16)
    assert found.sharpness == 0 and found.aspect is None


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (np.full((64, 64, 3), 128), "low contrast, low information, nearly uniform"),
        (np.full((64, 64, 3), 3), "dark, low contrast, low information, nearly uniform"),
        (np.full((64, 64, 3), 250), "bright, low contrast, low information, nearly uniform"),
        (np.random.default_rng(0).integers(0, 255, (64, 64, 3)), None),
        (np.zeros((1, 1, 3)), "dark, low contrast, low information, nearly uniform"),
    ],
)
def test_issues_say_what_is_wrong(pixels, name):
    assert issues(measure(packed(pixels), (64, 64))) == name


def test_odd_shapes_are_told():
    plain = Quality(900, 0.5, 0.2, 7, 0.1, 1.0)
    assert issues(plain) is None
    for aspect, odd in ((3.1, True), (3.0, False), (0.34, False), (0.3, True), (None, False)):
        found = issues(Quality(900, 0.5, 0.2, 7, 0.1, aspect))
        assert found == ("odd aspect" if odd else None), aspect


def test_a_photo_is_sharp_and_its_blurred_copy_is_not():
    from skimage import data

    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = Image.fromarray(getattr(data, name)())
        assert issues(measure(thumbnail(photo), photo.size)) is None, name
        small = photo.copy()
        small.thumbnail((256, 256))
        blurred = thumbnail(small.filter(ImageFilter.GaussianBlur(4)))
        assert issues(measure(blurred, photo.size)) == "blurry", name


def test_what_is_told_of_an_issue_is_the_filter_for_it(tmp_path):
    """The table in code and docs is what the code does."""
    rng = np.random.default_rng(0)
    store = Store.create(tmp_path / "c")
    rows = [
        Quality(
            rng.uniform(0, 100), rng.uniform(0, 1), rng.uniform(0, 0.2), rng.uniform(0, 8),
            rng.uniform(0.5, 1), float(rng.uniform(0.1, 5)) if i % 5 else None,
        )
        for i in range(500)
    ]  # fmt: skip
    values = {name: [getattr(q, name) for q in rows] for name in COLUMNS[:-1]}
    store.add_columns(pa.schema([(name, pa.float64()) for name in values]))
    uris = [f"/{i}" for i in range(500)]
    store.upsert(pa.table({"image_id": range(500), "uri": uris, **values}))
    for name, (told, test) in ISSUES.items():
        assert compile_filter(told, store.columns())
        expected = [i for i, quality in enumerate(rows) if test(quality)]
        assert 0 < len(expected) < 500 and store.ids(told).tolist() == expected, name


def test_only_what_is_new_or_changed_is_measured(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name: str, low: int, high: int) -> None:
        Image.fromarray(rng.integers(low, high, (48, 48, 3), np.uint8)).save(folder / name)

    for number in range(5):
        write(f"{number}.png", 0, 255)
    ingest(folder, tmp_path / "c", encoders=["pocket-visual"])
    collection = retrieval.open(tmp_path / "c")
    collection.store.upsert(
        pa.table({"image_id": [1], "uri": ["/none"], "width": [9], "height": [3]})
    )
    assert collection.shape(["quality"]).measured == {"quality": 6}
    assert collection.shape(["quality"]).measured == {"quality": 0}
    assert len(collection.store.ids("sharpness is null and aspect = 3.0")) == 1
    before = dict(
        zip(*collection.store.made.read(["brightness"]).to_pydict().values(), strict=True)
    )
    write("2.png", 0, 9)
    write("new.png", 0, 9)
    ingest(folder, collection)
    report = collection.shape(["quality"])
    assert report.measured == {"quality": 2} and report.issues["dark"] == 2
    after = dict(zip(*collection.store.made.read(["brightness"]).to_pydict().values(), strict=True))
    changed = collection.store.find_uri(str(folder / "2.png"))
    assert {i: v for i, v in after.items() if i in before and i != changed} == {
        i: v for i, v in before.items() if i != changed
    }
    assert sorted(collection.store.ids("issues like '%dark%'")) == sorted(
        collection.store.find_uri(str(folder / name)) for name in ("2.png", "new.png")
    )
