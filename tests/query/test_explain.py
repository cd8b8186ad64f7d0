"""Why an image matched: values, fallbacks, errors."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import retrieval
from indexers import ingest
from retrieval import Term
from retrieval.encoders import PatchTokens, Preprocess, load
from retrieval.errors import EncoderError, ModalityError, QueryError, UnknownSpace
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import picture, write_pictures

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def square(name: str) -> Image.Image:
    data = pytest.importorskip("skimage.data")
    photo = Image.fromarray(getattr(data, name)())
    side = min(photo.size)
    left = (photo.width - side) // 2
    return photo.crop((left, 0, left + side, side)).resize((224, 224))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four photos, a collage of them, and a wide picture."""
    folder = tmp_path_factory.mktemp("photos")
    collage = Image.new("RGB", (448, 448))
    for (row, column), name in zip(CORNERS, PHOTOS, strict=True):
        square(name).save(folder / f"{name}.png")
        collage.paste(square(name), (224 * column, 224 * row))
    collage.save(folder / "collage.png")
    picture(1, (300, 100)).save(folder / "wide.png")
    return folder


@pytest.fixture(scope="module")
def collection(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "c.lance"
    ingest(folder, path)
    return retrieval.open(path)


def id_of(collection, path) -> int:
    return collection.store.find_uri(str(path))


def corner(heat) -> tuple[int, int]:
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row != 3 and column != 3  # the places on the seams
    return int(row > 3), int(column > 3)


def scaled(encoder, path) -> np.ndarray:
    """Tokens of a file, one at a time, the longest of length 1."""
    tokens = encoder.encode_patches([Image.open(path).convert("RGB")]).tokens[0]
    return tokens / max(np.linalg.norm(token) for token in tokens)


def test_words_weigh_every_token_with_the_query(collection, folder):
    encoder = load("pocket-text")
    cat, dog = encoder.encode_texts(["a cat", "a dog"]).astype(np.float64)
    example = encoder.encode_images([Image.open(folder / "coffee.png").convert("RGB")])[0]
    questions = [
        ({"text": "a cat"}, cat),
        ({"text": "a cat", "negative": ["a dog"]}, cat - 0.5 * dog),
        ({"text": "a cat", "image": folder / "coffee.png"}, cat + example),
        ({"vector": 3 * cat, "space": "pocket-text"}, cat),
        ({"image": folder / "coffee.png", "space": "pocket-text"}, example),
    ]
    image_id = id_of(collection, folder / "collage.png")
    tokens = scaled(encoder, folder / "collage.png")
    for question, vector in questions:
        why = collection.explain(image_id, **question)
        unit = vector / np.linalg.norm(vector)
        wanted = [float(token @ unit) for token in tokens]
        assert why.heat.shape == (7, 7) and why.heat.dtype == np.float32
        np.testing.assert_allclose(why.heat.ravel(), wanted, atol=1e-5)
        hits = {hit.image.image_id: hit.score for hit in collection.search(k=9, **question)}
        assert why.score == pytest.approx(hits[image_id], abs=1e-5)
        assert why.space == "pocket-text" and why.image == collection.get(image_id)
        assert (why.query_heat is None) == (question.keys() != {"image", "space"})
    own = collection.store.vectors_of("pocket-text", [image_id])[0]
    wanted = [float(token @ own) for token in scaled(encoder, folder / "coffee.png")]
    np.testing.assert_allclose(why.query_heat.ravel(), wanted, atol=1e-5)


def test_a_picture_in_a_visual_space_is_matched_place_by_place(collection, folder):
    encoder = load("pocket-visual")
    ours, asked = (scaled(encoder, folder / f"{name}.png") for name in ("collage", "rocket"))
    image_id = id_of(collection, folder / "collage.png")
    best = [[float(a @ b) for b in asked] for a in ours]
    for question in ({"image": folder / "rocket.png"}, {"query_id": 0}):
        if "query_id" in question:
            question["query_id"] = id_of(collection, folder / "rocket.png")
        why = collection.explain(image_id, **question)
        np.testing.assert_allclose(why.heat.ravel(), np.max(best, axis=1), atol=1e-5)
        np.testing.assert_allclose(why.query_heat.ravel(), np.max(best, axis=0), atol=1e-5)
        assert why.space == "pocket-visual" and why.query_view.picture.size == (224, 224)
    score = collection.search(image=folder / "rocket.png", where="width = 448")[0].score
    assert why.score == pytest.approx(score, abs=1e-5)


def test_several_pictures_are_the_weighted_mean(collection, folder):
    image_id = id_of(collection, folder / "collage.png")
    cat, rocket = (
        collection.explain(image_id, image=folder / f"{name}.png").heat
        for name in ("chelsea", "rocket")
    )
    terms = [Term(image=folder / "chelsea.png"), Term(image=folder / "rocket.png", weight=-0.5)]
    both = collection.explain(image_id, terms=terms)
    np.testing.assert_allclose(both.heat, (cat - 0.5 * rocket) / 1.5, atol=1e-6)
    assert both.query_heat is None and both.query_view is None


@pytest.mark.parametrize(("name", "at"), list(zip(PHOTOS, CORNERS, strict=True)))
def test_a_pasted_picture_is_found_in_its_corner(collection, folder, name, at):
    image_id = id_of(collection, folder / "collage.png")
    why = collection.explain(image_id, image=folder / f"{name}.png")
    assert corner(why.heat) == at
    back = collection.explain(id_of(collection, folder / f"{name}.png"), query_id=image_id)
    assert corner(back.query_heat) == at


@pytest.mark.parametrize(
    ("words", "at"), [("a cat", (0, 0)), ("a cup of coffee", (0, 1)), ("a rocket", (1, 0))]
)
def test_words_are_found_in_the_corner_that_shows_them(collection, folder, words, at):
    assert corner(collection.explain(id_of(collection, folder / "collage.png"), words).heat) == at


def test_an_image_is_wholly_like_itself(collection, folder):
    image_id = id_of(collection, folder / "chelsea.png")
    why = collection.explain(image_id, query_id=image_id)
    assert why.score == pytest.approx(1, abs=1e-5)
    assert why.heat.max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(why.heat, why.query_heat)


class Spy(ColourEncoder):
    """Remembers what it saw; its tokens are the places' colours."""

    def __init__(self, preprocess: Preprocess | None) -> None:
        self.spec = replace(ColourEncoder.spec, name="spy", preprocess=preprocess, patch_px=2)

    def encode_images(self, images):
        return ColourEncoder().encode_images(images)

    def encode_patches(self, images):
        self.seen = images[0].size
        flat = np.stack([np.asarray(i.resize((2, 3)), np.float32).reshape(6, 3) for i in images])
        tokens = np.pad(flat, ((0, 0), (0, 2), (0, 46)))  # two of padding, as a longer neighbour's
        return PatchTokens(tokens, np.array([[3, 2]] * len(images)))


@pytest.mark.parametrize(
    ("resize", "box"),
    [
        (("shortest", 224), (100.0, 0.0, 200.0, 100.0)),
        (("shortest", 256), (106.25, 6.25, 193.75, 93.75)),
        (("squash", 224), (0.0, 0.0, 300.0, 100.0)),
        (("longest", 224), (0.0, -100.0, 300.0, 200.0)),
        (None, (0.0, 0.0, 300.0, 100.0)),
    ],
)
def test_the_box_is_what_the_encoder_looks_at(folder, tmp_path, resize, box):
    half = (0.5, 0.5, 0.5)
    encoder = Spy(resize and Preprocess(224, *resize, "bicubic", half, half))
    ingest(folder, tmp_path / "c", encoders=[encoder])
    collection = retrieval.open(tmp_path / "c", encoders=[encoder])
    why = collection.explain(id_of(collection, folder / "wide.png"), "red")
    assert why.view.box == pytest.approx(box) and encoder.seen == (300, 100)
    assert why.heat.shape == (3, 2)


def test_the_box_is_where_the_pixels_that_count_are(collection, folder, tmp_path):
    left, _, right, _ = collection.explain(id_of(collection, folder / "wide.png"), "x").view.box
    wide = Image.open(folder / "wide.png")
    wide.crop((int(left), 0, int(right), 100)).save(tmp_path / "cut.png")
    encoder = load("pocket-text")
    whole, cut = encoder.encode_images([wide, Image.open(tmp_path / "cut.png")])
    assert whole @ cut > 0.999


def test_a_file_that_is_not_there_any_more_is_explained_by_its_thumbnail(folder, tmp_path):
    photos = shutil.copytree(folder, tmp_path / "photos")
    ingest(photos, tmp_path / "c")
    collection = retrieval.open(tmp_path / "c")
    gone, changed = (id_of(collection, photos / name) for name in ("chelsea.png", "coffee.png"))
    before = collection.explain(gone, "a cat")
    assert before.view.note == "" and before.view.picture.size == (224, 224)
    (photos / "chelsea.png").unlink()
    shutil.copy(photos / "rocket.png", photos / "coffee.png")
    after = collection.explain(gone, "a cat")
    assert "chelsea.png: the file is gone" in after.view.note and "thumbnail" in after.view.note
    assert after.score == before.score
    assert np.corrcoef(after.heat.ravel(), before.heat.ravel())[0, 1] > 0.9
    other = collection.explain(gone, query_id=changed)
    assert "coffee.png: the file has changed" in other.query_view.note
    np.testing.assert_allclose(
        np.asarray(other.query_view.picture, float).mean((0, 1)),
        np.asarray(square("coffee"), float).mean((0, 1)),
        atol=3,
    )
    bare = {"image_id": [gone], "thumbnail": pa.nulls(1, pa.binary())}
    collection.store.update(pa.table(bare))
    with pytest.raises(QueryError, match=r"chelsea.png: the file is gone, and .* no thumbnail"):
        collection.explain(gone, "a cat")


def test_an_encoder_without_patch_tokens_names_those_that_have_them(tmp_path):
    write_pictures(tmp_path / "photos", 2)
    ingest(tmp_path / "photos", tmp_path / "a", encoders=[ColourEncoder()])
    alone = retrieval.open(tmp_path / "a", encoders=[ColourEncoder()])
    some = alone.search("red")[0].image.image_id
    with pytest.raises(EncoderError, match=r"colour does not tell .* as pocket-text") as caught:
        alone.explain(some, "red")
    assert "pocket-visual" not in str(caught.value)  # holds no words
    with pytest.raises(EncoderError, match="as pocket-visual or pocket-text"):
        alone.explain(some, query_id=some)
    both = [ColourEncoder(), load("pocket-text")]
    ingest(tmp_path / "photos", tmp_path / "b", encoders=both)
    with pytest.raises(EncoderError, match="explain in the space pocket-text"):
        retrieval.open(tmp_path / "b", encoders=both).explain(some, "red")


def test_questions_without_an_answer_are_clear_errors(collection, folder):
    image_id = id_of(collection, folder / "chelsea.png")
    with pytest.raises(QueryError, match="empty"):
        collection.explain(image_id)
    with pytest.raises(QueryError, match="12345"):
        collection.explain(12345, "a cat")
    with pytest.raises(QueryError, match="12345"):
        collection.explain(image_id, query_id=12345)
    with pytest.raises(ModalityError, match="pocket-text"):
        collection.explain(image_id, "a cat", space="pocket-visual")
    with pytest.raises(UnknownSpace):
        collection.explain(image_id, "a cat", space="clip")
    with pytest.raises(QueryError, match="bare vector"):
        collection.explain(image_id, vector=np.ones(256))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_networks_of_the_field_explain_too(folder, tmp_path, monkeypatch, family):
    pytest.importorskip("transformers")
    from tests.encoders.checkpoints import FAMILIES

    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    encoder = load(str(FAMILIES[family](tmp_path / family)))
    ingest(folder, tmp_path / "c", encoders=[encoder])
    collection = retrieval.open(tmp_path / "c", encoders=[encoder])
    image_id = id_of(collection, folder / "collage.png")
    tokens = scaled(encoder, folder / "collage.png")
    why = collection.explain(image_id, image=folder / "coffee.png")
    if "text" in encoder.spec.modalities:
        [picture] = encoder.encode_images([Image.open(folder / "coffee.png").convert("RGB")])
        np.testing.assert_allclose(why.heat.ravel(), tokens @ picture, atol=1e-4)
        [words] = encoder.encode_texts(["a small dog"])
        by_words = collection.explain(image_id, "a small dog")
        np.testing.assert_allclose(by_words.heat.ravel(), tokens @ words, atol=1e-4)
    else:
        best = (tokens @ scaled(encoder, folder / "coffee.png").T).max(axis=1)
        np.testing.assert_allclose(why.heat.ravel(), best, atol=1e-4)
    assert why.heat.shape == why.query_heat.shape
    assert why.heat.shape[0] * encoder.spec.patch_px == encoder.spec.preprocess.size
