"""`Collection.classify`: labels with evidence, how sure they are, and what is written."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval.encoders import space_of
from retrieval.errors import CollectionError, ImageError, QueryError
from retrieval.query import Collection
from retrieval.query.classify import leave_one_out
from retrieval.query.classify.answering import Asked
from retrieval.query.classify.exemplars import gather
from retrieval.query.classify.votes import votes
from retrieval.store import Store
from tests.encoders_of_tests import ColourEncoder
from tests.query.test_classify_leave_one_out import DIM, clouds, made, naive

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(colour: str, noise: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = np.array(COLOURS[colour]) + rng.normal(0, noise, (4, 4, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def add(collection: Collection, first: int, labels: list, noise: int = 60) -> None:
    """More images of a colour each; the label says which, but for those without one."""
    encoder = ColourEncoder()
    names = [label or "red" for label in labels]
    pictures = [picture(name, noise, first + i) for i, name in enumerate(names)]
    flat = pa.array(encoder.encode_images(pictures).ravel())
    rows = {
        "image_id": range(first, first + len(labels)),
        "uri": [f"/{first + i}.png" for i in range(len(labels))],
        "label": pa.array(labels, pa.string()),
        "vector_colour": pa.FixedSizeListArray.from_arrays(flat, encoder.spec.dim),
    }
    collection.store.upsert(pa.table(rows))


def colours(place, labels: list) -> Collection:
    found = Collection(Store.create(place, [space_of(ColourEncoder())]))
    found.use(ColourEncoder())
    add(found, 0, labels)
    return found


@pytest.fixture
def many(tmp_path) -> Collection:
    return colours(tmp_path / "c", ["red", "green", "blue"] * 40 + [None] * 4)


def test_a_label_comes_with_its_evidence(many, tmp_path):
    picture("blue", 60, 999).save(tmp_path / "new.png")
    found = many.classify([tmp_path / "new.png", picture("red", 60, 998)], k=7)
    first, second = found
    assert (first.label, second.label) == ("blue", "red")
    assert first.uri == str(tmp_path / "new.png") and second.uri is None
    assert not first.abstained and first.labels == ("blue",) and first.reason == ""
    assert found.exemplars == 120 and found.unlabelled == 4 and found.k == 7
    for each in found:
        scores = [near.score for near in each.neighbors]
        assert len(scores) == 7 and scores == sorted(scores, reverse=True)
        assert sum(near.weight for near in each.neighbors) == pytest.approx(1)
        assert all(near.label == near.image.label for near in each.neighbors)
        assert each.neighbors[0].weight == max(near.weight for near in each.neighbors)
    assert found.to_arrow()["label"].to_pylist() == ["blue", "red"]
    assert found.to_pandas()["labels"][0] == ["blue"]
    assert len(many.classify([])) == 0


def test_what_is_like_nothing_is_not_answered(many):
    [found] = many.classify([Image.new("RGB", (4, 4), "white")])
    assert found.abstained and found.reason.startswith("unlike every exemplar")
    assert found.label in COLOURS and 0 < found.confidence < 1


def test_what_may_be_two_things_is_not_answered(many):
    half = np.zeros((4, 4, 3), np.uint8)
    half[:2, :, 0] = half[2:, :, 1] = 255
    encoder = ColourEncoder()
    mixed = encoder.encode_images([Image.fromarray(half)] * 30)
    mixed += np.random.default_rng(0).normal(0, 0.02, mixed.shape).astype(np.float32)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    rows = {
        "image_id": range(1000, 1030),
        "uri": [f"/mixed{i}.png" for i in range(30)],
        "label": ["red", "green"] * 15,
        "vector_colour": pa.FixedSizeListArray.from_arrays(pa.array(mixed.ravel()), 49),
    }
    many.store.upsert(pa.table(rows))
    [found] = many.classify([half], coverage=0.99)
    assert found.abstained and found.reason.startswith("unsure: it may be ")
    assert set(found.labels) == {"red", "green"} and found.label in found.labels
    [sure] = many.classify([half], min_accuracy=0.4)
    assert not sure.abstained and sure.confidence == found.confidence
    [strict] = many.classify([half], min_accuracy=1)
    assert strict.abstained and "the wanted accuracy" in strict.reason


def test_few_exemplars_are_enough_and_a_new_one_counts_at_once(tmp_path):
    few = colours(tmp_path / "c", ["red", "green"])
    [found] = few.classify([picture("blue", 30, 1)])
    assert found.label in ("red", "green") and len(found.neighbors) == 2
    assert found.labels is None and not found.abstained
    add(few, 10, ["blue"])
    answer = few.classify([picture("blue", 30, 1), picture("green", 30, 1)])
    assert [each.label for each in answer] == ["blue", "green"]
    assert answer.k == 3 and answer.trust is None
    with pytest.raises(QueryError, match="too few exemplars to tell how accurate"):
        few.classify([picture("blue", 30, 1)], min_accuracy=0.9)
    few.delete([10])
    assert few.classify([picture("blue", 30, 1)])[0].label != "blue"


def test_a_rare_class_wins_with_balanced_votes(tmp_path):
    rare = colours(tmp_path / "c", ["red"] * 60 + ["green"])
    dim = np.zeros((4, 4, 3), np.uint8)
    dim[..., 0], dim[..., 1] = 120, 140
    assert rare.classify([dim], temperature=1)[0].label == "red"
    assert rare.classify([dim], temperature=1, k=61, balanced=True)[0].label == "green"


@pytest.mark.parametrize("balanced", [False, True])
def test_stored_images_have_no_vote_on_themselves(tmp_path, balanced):
    labels = np.random.default_rng(0).choice(list("aaabbcd"), 120).tolist()
    collection = made(tmp_path / "c", labels)
    found = collection.classify_stored("width < 50", k=9, balanced=balanced)
    store = collection.store
    exemplars = gather(store, collection.vectors("s"), "label", None)
    rows = store.vectors_of("s", exemplars.ids)
    plain = naive(exemplars.ids, rows, exemplars.codes, 4, 9, 0.07, balanced)
    asked = Asked("label", 9, 0.07, balanced, None, "s", 0.9, None)
    trust = collection._trust(store, exemplars, asked)
    told = trust.calibrated(plain, 9)
    assert len(found) == 50
    for each in found:
        at = int(np.searchsorted(exemplars.ids, each.image_id))
        assert each.label == exemplars.classes[plain[at].argmax()]
        assert each.confidence == pytest.approx(told[at].max(), abs=1e-12)
        inside = {exemplars.classes[c] for c in np.flatnonzero(1 - told[at] <= trust.border)}
        assert set(each.labels) == inside
        assert each.image_id not in [near.image.image_id for near in each.neighbors]
    some = collection.classify_stored([found[3].image_id], k=9, balanced=balanced)
    assert some[0] == found[3]


def test_a_fit_is_remembered_until_something_changes(many, monkeypatch):
    fits = []
    whole = leave_one_out.near_of_sample
    monkeypatch.setattr(
        leave_one_out, "near_of_sample", lambda *given: fits.append(1) or whole(*given)
    )
    for _ in range(3):
        many.classify([picture("red", 60, 5)])
    assert len(fits) == 1
    many.classify([picture("red", 60, 5)], coverage=0.8)
    add(many, 500, ["red"])
    many.classify([picture("red", 60, 5)])
    assert len(fits) == 3


def test_predictions_are_written_only_when_asked(many):
    found = many.classify_stored("label is null", k=5)
    assert len(found) == 4 and not many.store.made.columns()
    again = many.classify_stored("label is null", k=5, apply=True)
    assert list(again) == list(found)
    made_by = many.store.made.columns()
    assert set(made_by) == {
        "predicted_label",
        "predicted_label_confidence",
        "predicted_label_abstained",
    }
    about = made_by["predicted_label"]
    assert (about.made_by, about.space, about.version) == ("classify", "colour", found.version)
    assert about.parameters["k"] == 5 and about.parameters["temperature"] == 0.07
    assert about.parameters["encoder"] == "colour" and about.software
    assert many.store.ids("predicted_label = 'red'").tolist() == [120, 121, 122, 123]
    [record] = many.store.records([120])
    assert record.label is None
    assert record.metadata["predicted_label_confidence"] == found[0].confidence
    assert len(many.store.ids("predicted_label is null")) == 120


def test_a_persons_own_column_is_not_written_over(many):
    many.store.add_columns(pa.schema([("predicted_label", pa.string())]))
    with pytest.raises(CollectionError, match="predicted_label"):
        many.classify_stored("label is null", apply=True)
    assert many.store.count("predicted_label is not null") == 0


def test_labels_of_other_kinds_are_written_as_they_are(tmp_path):
    collection = made(tmp_path / "c", list("ab") * 40, grade=[1, 2] * 40, good=[True, False] * 40)
    for name, value in (("grade", 1), ("good", "true")):
        found = collection.classify_stored("width < 4", name, apply=True)
        assert len(found) == 4
        assert collection.store.count(f"predicted_{name} = {value}") == sum(
            each.label in (1, True) for each in found
        )


def test_what_makes_no_sense_is_refused(many, tmp_path):
    given = [picture("red", 9, 1)]
    for bad, said in (
        ({"k": 0}, "k is at least 1"),
        ({"temperature": -1.0}, "above 0"),
        ({"coverage": 1.0}, "between 0 and 1"),
        ({"min_accuracy": 2.0}, "at most 1"),
        ({"where": "label = 'red'"}, "only the class 'red'"),
        ({"labels": "colour"}, "no column 'colour'"),
    ):
        with pytest.raises(QueryError, match=said):
            many.classify(given, **bad)
    with pytest.raises(QueryError, match="list of pictures"):
        many.classify("a.png")
    with pytest.raises(QueryError, match="no image with id"):
        many.classify_stored([99999])
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"bad\.png: "):
        many.classify([tmp_path / "bad.png"])
    flat = np.full((1, 49), np.nan, np.float32)
    rows = {"image_id": [7777], "uri": ["/n"], "label": ["red"]}
    rows["vector_colour"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 49)
    with pytest.raises(CollectionError, match="not finite"):
        many.store.upsert(pa.table(rows))


def test_clouds_are_told_apart():
    """The other tests would say little if nearest neighbours were right by chance alone."""
    codes = np.arange(90) % 3
    rows = clouds(0, codes)
    scores = rows @ rows.T
    np.fill_diagonal(scores, -2)
    near = np.argsort(-scores, axis=1)[:, :9]
    told = votes(np.take_along_axis(scores, near, 1), codes[near], 3).argmax(axis=1)
    assert 0.6 < (told == codes).mean() < 1 and rows.shape == (90, DIM)


@pytest.mark.slow
def test_clothing_is_told_as_well_as_promised(shared_data, tmp_path):
    """Train tells test: accuracy, calibration, coverage of the sets, and what is answered."""
    from indexers import ingest

    folder = shared_data("clothing")
    ingest(
        folder / "images",
        tmp_path / "c",
        encoders=["pocket-visual"],
        labels=f"{folder}/labels.csv:label",
    )
    collection = Collection(Store.open(tmp_path / "c"))
    found = collection.classify_stored("split = 'test'", where="split = 'train'")
    with open(folder / "labels.csv") as file:
        truth = {row["file"].split("/")[-1]: row["label"] for row in csv.DictReader(file)}
    true = [truth[each.uri.rsplit("/", 1)[-1]] for each in found]
    right = np.array([each.label == label for each, label in zip(found, true, strict=True)])
    inside = np.array([label in each.labels for each, label in zip(found, true, strict=True)])
    answered = np.array([not each.abstained for each in found])
    assert len(found) == 371 and found.exemplars == 1896
    assert right.mean() >= 0.72
    half = 1.96 * np.sqrt(0.9 * 0.1 / 371)
    assert abs(inside.mean() - 0.9) <= half
    assert answered.mean() > 0.3 and right[answered].mean() > right.mean() + 0.15
    assert found.trust.error_after < found.trust.error_before
    wanted = collection.classify_stored("split = 'test'", where="split = 'train'", min_accuracy=0.9)
    answered = np.array([not each.abstained for each in wanted])
    assert answered.mean() > 0.5 and right[answered].mean() > right.mean() + 0.1
    one = collection.evaluate_knn(where="split = 'train'")
    assert one.accuracy.low < right.mean() < one.accuracy.high
