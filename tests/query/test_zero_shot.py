"""Zero-shot classification: equal to the formulas, where words and eyes disagree, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import retrieval
from indexers import ingest
from retrieval.errors import CollectionError, ModalityError, QueryError, SourceError
from retrieval.query.background import background
from retrieval.query.zero_shot.classifier import ZeroShotClassifier
from retrieval.query.zero_shot.disagreements import Judged, disagreements
from retrieval.query.zero_shot.reading import Reading
from retrieval.query.zero_shot.templates import named, resolve
from tests.encoders_of_tests import WORDS, ColourEncoder


class Colours(ColourEncoder):
    """Reads the first colour in any text; a text without one is gray."""

    def __init__(self, scale: float | None = 10.0, bias: float | None = None) -> None:
        self.spec = replace(
            ColourEncoder.spec, logit_scale=scale, logit_bias=bias, prompt="a photo of a {}"
        )

    def encode_texts(self, texts):
        found = [next((WORDS[w] for w in WORDS if w in text), (90, 90, 90)) for text in texts]
        return self.encode_images([Image.new("RGB", (4, 4), colour) for colour in found])


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (30, 20), colour)


@pytest.fixture
def collection(tmp_path):
    for number, colour in enumerate(["red", "green", "blue"] * 4):
        shade = Image.new("RGB", (20, 20), tuple(max(0, c - 9 * number) for c in WORDS[colour]))
        (tmp_path / "photos").mkdir(exist_ok=True)
        shade.save(tmp_path / "photos" / f"{colour}{number}.png")
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[Colours()])
    opened = retrieval.open(tmp_path / "c")
    opened.use(Colours())
    return opened


def test_softmax_is_the_formula():
    encoder = Colours(scale=7.0)
    classifier = ZeroShotClassifier(["red", "green"], encoder=encoder, templates="imagenet-7")
    phrases = named()["imagenet-7"]
    rows = encoder.encode_images([picture("red"), picture("white")]).astype(np.float64)
    texts = []
    for label in ("red", "green"):
        mean = encoder.encode_texts([p.replace("{}", label) for p in phrases]).mean(axis=0)
        texts.append(mean / np.linalg.norm(mean))
    powers = np.exp(7.0 * rows @ np.array(texts, np.float64).T)
    expected = powers / powers.sum(axis=1, keepdims=True)
    found = classifier.predict_proba([picture("red"), picture("white")])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(rows * 3.5), expected, atol=1e-6)
    assert classifier.predict([picture("red")]).tolist() == ["red"]
    assert classifier.predict_proba([]).shape == (0, 2)


def test_sigmoid_is_the_formula_and_none_may_fit():
    encoder = Colours(scale=12.0, bias=-8.0)
    classifier = ZeroShotClassifier(["red"], encoder=encoder)
    cosines = encoder.encode_images([picture("red"), picture("green")]) @ classifier.vectors.T
    expected = 1 / (1 + np.exp(-(12.0 * cosines.astype(np.float64) - 8.0)))
    found = classifier.predict_proba([picture("red"), picture("green")])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0, 0] > 0.5 > found[1, 0]


def test_several_labels_are_judged_against_unrelated_scenes():
    encoder = Colours(scale=10.0)
    classifier = ZeroShotClassifier(["red", "green"], encoder=encoder, multi_label=True)
    rows = encoder.encode_images([picture("red"), picture("blue")])
    scenes = np.quantile(rows @ background(encoder).scenes.T, 0.95, axis=1)
    expected = 1 / (1 + np.exp(-10.0 * (rows @ classifier.vectors.T - scenes[:, None])))
    np.testing.assert_allclose(classifier.predict_proba(rows), expected, atol=1e-5)
    assert classifier.predict(rows).dtype == bool and classifier.predict(rows)[0, 0]


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1, 200),
    st.none() | st.floats(-20, 5),
)
def test_probabilities_are_probabilities_in_the_order_of_the_cosines(rows, scale, bias):
    cosines = np.array(rows, dtype=np.float32)
    found = Reading(scale, bias, False).probabilities(cosines)
    assert ((found >= 0) & (found <= 1)).all() and np.isfinite(found).all()
    if bias is None:
        np.testing.assert_allclose(found.sum(axis=1), 1)
    for row, probabilities in zip(cosines, found, strict=True):
        assert (np.diff(probabilities[np.argsort(row, kind="stable")]) >= -1e-12).all()


def test_scales_that_are_not_the_encoders_own_are_told():
    assert ZeroShotClassifier(["red", "blue"], encoder=Colours(5.0)).reading.note == ""
    assumed = ZeroShotClassifier(["red", "blue"], encoder=Colours(None)).reading
    assert assumed.scale == 100 and "no scale" in assumed.note


def test_templates_by_name_file_and_list(tmp_path):
    assert {name: len(found) for name, found in named().items()} == {
        "plain": 2, "imagenet-7": 7, "imagenet-80": 80,
    }  # fmt: skip
    for found in named().values():
        assert all(t.count("{}") == 1 for t in found) and len(set(found)) == len(found)
    assert set(named()["imagenet-7"]) < set(named()["imagenet-80"])
    assert resolve(None, Colours())[1] == ("{}", "a photo of a {}")
    own = tmp_path / "own.txt"
    own.write_text("# mine\na drawing of {}\n\n{} on paper\n")
    assert resolve(own, Colours()) == ("own.txt", ("a drawing of {}", "{} on paper"))
    assert resolve(["{}!"], Colours()) == ("given", ("{}!",))
    for wrong, said in (("imagenet", "imagenet-80"), (["a photo"], "{}"), ([], "empty")):
        with pytest.raises(QueryError, match=said):
            resolve(wrong, Colours())
    own.write_text("# nothing\n")
    with pytest.raises(SourceError, match="no template"):
        resolve(own, Colours())


def test_the_collection_is_named_with_its_nearest(collection):
    found = collection.zero_shot(["red", "green", "blue"])
    assert [each.image_id for each in found] == sorted(collection.store.ids().tolist())
    for each in found:
        assert each.label in each.uri and each.labels == (each.label,) and not each.abstained
        assert len(each.neighbors) == 3 and each.neighbors[0].label == each.label
        assert each.image_id not in {near.image_id for near in each.neighbors}
    classifier = ZeroShotClassifier(["red", "green", "blue"], encoder=Colours())
    ids = [each.image_id for each in found]
    expected = classifier.predict_proba(collection.store.vectors_of("colour", ids)).max(axis=1)
    np.testing.assert_allclose([each.confidence for each in found], expected, atol=1e-6)
    assert found.to_arrow().num_rows == len(found.as_json()["predictions"]) == 12


def test_pictures_and_ids_get_what_the_collection_gets(collection, tmp_path):
    whole = {each.image_id: each for each in collection.zero_shot(["red", "green", "blue"])}
    some = list(whole)[:2]
    files = [collection.get(i).uri for i in some]
    found = collection.zero_shot(["red", "green", "blue"], images=[*some, *files, picture("red")])
    for each in found[:2]:
        same = whole[each.image_id]
        assert (each.uri, each.label) == (same.uri, same.label)
        assert each.confidence == pytest.approx(same.confidence, abs=1e-6)
        assert [n.image_id for n in each.neighbors] == [n.image_id for n in same.neighbors]
    for each, image_id in zip(found[2:4], some, strict=True):
        assert each.image_id is None and each.uri == whole[image_id].uri
        assert each.neighbors[0].image_id == image_id
    assert found[4].uri is None and found[4].label == "red" and not found.disagreements
    only = collection.zero_shot(["red", "blue"], images=some, where="uri like '%blue%'")
    assert all("blue" in near.uri for each in only for near in each.neighbors)


def test_columns_are_written_with_where_they_come_from(collection):
    collection.zero_shot(["red", "green", "blue"], where="uri like '%red%'", apply=True)
    rows = collection.store.made.read(["uri", "zero_shot", "zero_shot_confidence"]).to_pylist()
    assert {row["zero_shot"] for row in rows} == {"red", None}
    assert collection.status("zero_shot = 'red'")["matching"] == 4
    made = collection.store.made.columns()["zero_shot"]
    assert made.made_by == "zero-shot" and made.space == "colour"
    assert made.parameters["labels"] == ["red", "green", "blue"]


def test_what_makes_no_sense_is_said(collection, tmp_path):
    cases = [
        ([], "no label"),
        (["red"], "only label"),
        (["red", "red"], "twice"),
        (["red", " "], "empty"),
    ]
    for labels, said in cases:
        with pytest.raises(QueryError, match=said):
            collection.zero_shot(labels)
    with pytest.raises(QueryError, match="list"):
        collection.zero_shot("red,blue")
    with pytest.raises(QueryError, match="fits the filter"):
        collection.zero_shot(["red", "blue"], where="width > 5000")
    with pytest.raises(QueryError, match="leave images out"):
        collection.zero_shot(["red", "blue"], images=[picture("red")], apply=True)
    with pytest.raises(QueryError, match="5"):
        collection.zero_shot(["red", "blue"], images=[5])
    with pytest.raises(ModalityError, match="takes text"):
        ZeroShotClassifier(["a", "b"], encoder="pocket-visual")
    (tmp_path / "none").mkdir()
    ingest(tmp_path / "none", tmp_path / "e", encoders=[Colours()])
    empty = retrieval.open(tmp_path / "e")
    empty.use(Colours())
    with pytest.raises(QueryError, match="index a folder first"):
        empty.zero_shot(["red", "blue"])
    ingest(tmp_path / "photos", tmp_path / "v", encoders=["pocket-visual"])
    with pytest.raises(ModalityError, match="holds text"):
        retrieval.open(tmp_path / "v").zero_shot(["red", "blue"])


def test_own_columns_are_not_written_over(collection, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for n in range(2):
        picture("red").save(folder / f"{n}.png")
    (folder / "labels.csv").write_text("file,kind,zero_shot\n0.png,x,mine\n1.png,x,mine\n")
    ingest(folder, tmp_path / "o", encoders=[Colours()], labels=f"{folder}/labels.csv:kind")
    own = retrieval.open(tmp_path / "o")
    own.use(Colours())
    with pytest.raises(CollectionError, match="zero_shot"):
        own.zero_shot(["red", "blue"], apply=True)


class Held:
    """Rows in memory."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, rows.shape

    def take(self, positions):
        return self.rows[positions]


@pytest.mark.parametrize("seed", range(5))
def test_disagreements_are_what_comparing_all_pairs_finds(seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    judged = Judged(rng.integers(0, 3, 40), rng.random(40), rng.random(40) < 0.1)
    cosines = rows @ rows.T
    near = np.argsort(-(cosines - 9 * np.eye(40)), axis=1)[:, :3]
    found = disagreements(judged, near, np.take_along_axis(cosines, near, 1), Held(rows))
    pairs = [(a, b) for a in range(40) for b in range(a + 1, 40)]
    pairs = [(a, b) for a, b in pairs if not judged.abstained[[a, b]].any()]
    alike = [
        (cosines[a, b] * judged.confidence[[a, b]].min(), a, b)
        for a, b in pairs
        if judged.labels[a] != judged.labels[b] and (b in near[a] or a in near[b])
    ]
    same = [(a, b) for a, b in pairs if judged.labels[a] == judged.labels[b]]
    far = np.quantile([cosines[a, b] for a, b in same], 0.01)
    apart = [
        ((1 - cosines[a, b]) * judged.confidence[[a, b]].min(), a, b)
        for a, b in same
        if cosines[a, b] <= far + 1e-7
    ]
    for kind, expected in (("looks alike", alike), ("named alike", apart)):
        seen: set[int] = set()
        kept = []
        for strength, a, b in sorted(expected, reverse=True):
            if not seen & {a, b}:
                seen |= {a, b}
                kept.append((a, b, strength))
        told = [(p.a, p.b, p.strength) for p in found if p.kind == kind]
        assert [pair[:2] for pair in told] == [pair[:2] for pair in kept]
        np.testing.assert_allclose([p[2] for p in told], [p[2] for p in kept], atol=1e-5)


@pytest.mark.slow
def test_templates_are_those_of_the_reference():
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    for name, theirs in (
        ("imagenet-7", metadata.SIMPLE_IMAGENET_TEMPLATES),
        ("imagenet-80", metadata.OPENAI_IMAGENET_TEMPLATES),
    ):
        assert list(named()[name]) == [template("{}") for template in theirs]
