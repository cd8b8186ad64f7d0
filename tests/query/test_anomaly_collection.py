"""Anomalies as a collection tells them, and the banks that it keeps."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

import retrieval
from indexers import ingest
from retrieval.encoders import load
from retrieval.errors import EncoderError, FilterError, QueryError, SpaceMismatch, UnknownSpace
from retrieval.query.anomaly import calls
from retrieval.query.anomaly.bank import KEEP, Recipe, make_bank, open_bank, save_bank
from retrieval.query.anomaly.images import Normals
from retrieval.query.anomaly.tiling import places
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures

NORMAL = "split = 'train'"


def plate(seed: int, spot: tuple[int, int] | None = None) -> Image.Image:
    """Stripes with a little noise, maybe with a dark spot in them."""
    rng = np.random.default_rng(seed)
    stripes = 130 + 60 * np.sin(np.arange(120) / 5)[None, :, None]
    noise = rng.normal(0, 6, (120, 120, 3))
    image = Image.fromarray(np.clip(stripes + noise, 0, 255).astype(np.uint8))
    if spot is not None:
        x, y = spot
        ImageDraw.Draw(image).ellipse((x - 8, y - 8, x + 8, y + 8), fill=(20, 10, 60))
    return image


def plates(folder: Path, normal: int, *, other: int = 1) -> Path:
    """A folder of normal plates, some of another split, and the CSV that says which."""
    folder.mkdir(parents=True)
    lines = ["file,label,split"]
    for seed in range(normal + other):
        plate(seed).save(folder / f"{seed:02d}.png")
        lines.append(f"{seed:02d}.png,plate,{'train' if seed < normal else 'test'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def made(tmp: Path, normal: int, **more) -> retrieval.Collection:
    folder = plates(tmp / "photos", normal)
    ingest(folder, tmp / "c.lance", labels=f"{folder / 'labels.csv'}:label", **more)
    return retrieval.open(tmp / "c.lance", encoders=more.get("encoders"))


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return made(tmp_path_factory.mktemp("anomaly"), 8)


def banks(collection) -> list[Path]:
    return sorted(Path(collection.uri).rglob(".bank-*/bank.json"))


def test_what_is_odd_is_found_and_where(collection):
    pictures = [plate(100), plate(101, (90, 30)), plate(102, (20, 100))]
    found = collection.anomaly(pictures, NORMAL, keep=1000)
    assert len(found) == 3 and found.normals == 8 and found.space == "pocket-visual"
    good, right, left = found
    assert (good.place, good.uri, left.place) == (0, "picture 1", 2)
    assert right.anomaly_score > 2 * good.anomaly_score and right.is_anomaly and left.is_anomaly
    for one, (x, y) in ((right, (90, 30)), (left, (20, 100))):
        assert one.heatmap.shape == (120, 120) and one.heatmap.dtype == np.float32
        row, column = np.unravel_index(one.heatmap.argmax(), (120, 120))
        assert abs(row - y) < 14 and abs(column - x) < 14
        assert one.threshold == found.limit.threshold < one.anomaly_score
    assert found.limit.false_alarm_rate == pytest.approx(1 / 9) and "0.111 at best" in found.note


def test_scores_are_those_of_brute_force_over_the_normal_files(collection):
    encoder = load("pocket-visual")
    ids = collection.store.ids(NORMAL)
    normals = [Image.open(r.uri).convert("RGB") for r in collection.store.records(np.sort(ids))]
    query = plate(101, (90, 30))
    bank = np.concatenate([places(encoder, one).rows for one in normals]).astype(np.float64)
    seen = places(encoder, query).rows.astype(np.float64)
    far = sorted(1 - (seen @ bank.T).max(axis=1))
    [one] = collection.anomaly([query], NORMAL, tiles=1, keep=None)
    assert one.anomaly_score == pytest.approx(np.mean(far[-8:]), abs=1e-5)
    vectors = Normals(encoder.encode_images(normals))
    expected = vectors.score(encoder.encode_images([query]))[0]
    assert one.image_score == pytest.approx(expected, abs=1e-5)
    [whole] = (found := collection.anomaly([query], NORMAL, patches=False))
    assert whole.anomaly_score == whole.image_score == pytest.approx(expected, abs=1e-5)
    assert whole.patches is None and whole.heatmap is None
    assert found.limit == found.image_limit
    turned = collection.anomaly([query.rotate(90)], NORMAL, tiles=1, keep=None)[0]
    both = collection.anomaly([query.rotate(90)], NORMAL, tiles=1, keep=None, rotate=True)[0]
    assert both.anomaly_score < turned.anomaly_score


def test_runs_agree_to_the_last_bit_and_one_of_them_only_reads(collection, monkeypatch):
    first = collection.anomaly([plate(7, (50, 50))], NORMAL, keep=1000)
    folder = banks(collection)[0].parent
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    def never(*_):
        raise AssertionError("the bank is made again")

    monkeypatch.setattr(calls, "make_bank", never)
    again = retrieval.open(collection.uri).anomaly([plate(7, (50, 50))], NORMAL, keep=1000)
    assert again[0].anomaly_score == first[0].anomaly_score and again.limit == first.limit
    np.testing.assert_array_equal(again[0].patches.distances, first[0].patches.distances)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_one_normal_image_gives_scores_and_no_threshold(tmp_path):
    collection = made(tmp_path, 1)
    found = collection.anomaly([plate(50), plate(51, (60, 60))], NORMAL)
    assert found[1].anomaly_score > found[0].anomaly_score
    assert [one.is_anomaly for one in found] == [None, None] and found[0].threshold is None
    assert "too few normal images" in found.note


def test_a_bank_is_made_anew_when_the_normals_change_and_goes_with_a_purge(tmp_path):
    collection = made(tmp_path, 4)
    query = [plate(60, (60, 60))]
    before = collection.anomaly(query, NORMAL, tiles=1, keep=None)
    [note] = banks(collection)
    facts = json.loads(note.read_text())
    assert facts["images"] == 4 and facts["version"] == collection.version
    assert facts["recipe"] == {"tiles": 1, "rotate": False, "keep": None, "seed": 0}
    gone = collection.store.ids(NORMAL)[:1]
    collection.delete(gone)
    after = collection.anomaly(query, NORMAL, tiles=1, keep=None)
    assert after.normals == 3 and len(banks(collection)) == 1
    assert after[0].anomaly_score >= before[0].anomaly_score
    assert json.loads(note.read_text())["images"] == 3
    collection.anomaly(query, NORMAL, tiles=1, keep=500)
    assert len(banks(collection)) == 2
    collection.delete([], purge=True)
    assert banks(collection) == []
    assert collection.anomaly(query, NORMAL, tiles=1, keep=None)[0].anomaly_score == pytest.approx(
        after[0].anomaly_score
    )


def test_a_damaged_bank_is_made_anew_and_that_of_another_encoder_refused(tmp_path):
    collection = made(tmp_path, 2)
    query = [plate(60, (60, 60))]
    first = collection.anomaly(query, NORMAL, keep=500)
    tokens = banks(collection)[0].parent / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-7] + b"damaged")
    assert collection.anomaly(query, NORMAL, keep=500)[0].anomaly_score == first[0].anomaly_score
    folder = tokens.parent
    space = collection.spaces["pocket-visual"]
    bank, _ = open_bank(folder, space)
    save_bank(bank, folder, replace(space, weights_hash="other"), {"normal": NORMAL})
    with pytest.raises(SpaceMismatch, match=r"other.*Remove that folder"):
        collection.anomaly(query, NORMAL, keep=500)
    shutil.rmtree(folder)
    assert collection.anomaly(query, NORMAL, keep=500)[0].anomaly_score == first[0].anomaly_score


def test_files_that_are_gone_are_left_out_and_told(tmp_path):
    collection = made(tmp_path, 3)
    files = sorted((tmp_path / "photos").glob("*.png"))
    files[0].unlink()
    found = collection.anomaly([plate(60)], NORMAL)
    assert "1 normal images are left out" in found.note and banks(collection) == []
    for path in files[1:3]:
        path.unlink()
    with pytest.raises(QueryError, match="files of all 3 normal images are gone"):
        collection.anomaly([plate(60)], NORMAL)
    assert len(collection.anomaly([plate(60)], NORMAL, patches=False)) == 1


def test_pictures_that_cannot_be_read_are_named_and_the_others_answered(collection, tmp_path):
    plate(70).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    asked = [tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "none.png", plate(71)]
    ticks = []
    found = collection.anomaly(
        asked, NORMAL, keep=1000, tell=lambda done, total: ticks.append((done, total))
    )
    assert [(one.place, one.uri) for one in found] == [
        (0, str(tmp_path / "good.png")),
        (3, "picture 4"),
    ]
    assert [(one.place, os.path.basename(one.uri)) for one in found.failures] == [
        (1, "bad.png"),
        (2, "none.png"),
    ]
    assert "no such file" in found.failures[1].reason and ticks[-1] == (4, 4)
    assert len(collection.anomaly([], NORMAL)) == 0


def test_an_encoder_without_places_compares_whole_pictures(tmp_path):
    collection = made(tmp_path, 5, encoders=[ColourEncoder()])
    found = collection.anomaly([Image.new("RGB", (9, 9), (255, 0, 0)), plate(9)], NORMAL)
    assert found[0].anomaly_score > found[1].anomaly_score and found[0].patches is None
    assert "colour does not tell what is where: only whole pictures" in found.note
    alone = retrieval.open(collection.uri)
    with pytest.raises(EncoderError, match="colour"):
        alone.anomaly([plate(9)], NORMAL)


def test_questions_without_an_answer_are_clear_errors(collection, tmp_path):
    query = [plate(0)]
    with pytest.raises(QueryError, match=r"no image fits \"split = 'x'\", so nothing is normal"):
        collection.anomaly(query, "split = 'x'")
    with pytest.raises(FilterError):
        collection.anomaly(query, "split = ")
    with pytest.raises(UnknownSpace):
        collection.anomaly(query, NORMAL, space="clip")
    with pytest.raises(QueryError, match="between 0 and 1"):
        collection.anomaly(query, NORMAL, false_alarm_rate=0)
    with pytest.raises(QueryError, match="1 tile or more"):
        collection.anomaly(query, NORMAL, tiles=0)
    with pytest.raises(QueryError, match="1 token or more"):
        collection.anomaly(query, NORMAL, keep=0)
    with pytest.raises(QueryError, match="is a list"):
        collection.anomaly("a.png", NORMAL)
    empty = retrieval.open(tmp_path / "empty", create=True)
    with pytest.raises(QueryError, match="collection is empty"):
        empty.anomaly(query, NORMAL)


def test_a_vector_that_is_not_finite_is_told(tmp_path):
    lance = pytest.importorskip("lance")
    write_pictures(tmp_path / "photos", 3)
    ingest(tmp_path / "photos", tmp_path / "c", encoders=[ColourEncoder()])
    collection = retrieval.open(tmp_path / "c", encoders=[ColourEncoder()])
    image_id = int(collection.store.ids()[1])
    column = collection.store.vector_column("colour")
    bad = np.full(49, np.nan, dtype=np.float32)
    rows = {"image_id": [image_id], column: pa.array([bad], pa.list_(pa.float32(), 49))}
    # Past the store, which refuses it: as another program, or a broken disk, might.
    [table] = (tmp_path / "c").glob("images*")
    planted = lance.dataset(str(table)).merge_insert("image_id").when_matched_update_all()
    planted.execute(pa.table(rows))
    with pytest.raises(QueryError, match=f"vector of image {image_id} .* not finite"):
        collection.anomaly([plate(0)], "width > 0")


def test_a_bank_of_many_is_a_coreset_and_is_scored_without_its_own(tmp_path):
    encoder = load("pocket-visual")
    pictures = [plate(seed) for seed in range(3)]
    recipe = Recipe(tiles=1, keep=200)
    bank = make_bank(encoder, 3, pictures.__getitem__, recipe)
    assert bank.tokens.shape == (200, 40) and set(bank.owners) == {0, 1, 2} and KEEP == 5000
    seen = places(encoder, pictures[1]).rows
    far = np.sort(1 - (seen @ bank.tokens[bank.owners != 1].T).max(axis=1))[-8:]
    assert bank.held_out[1] == pytest.approx(far.mean(), abs=1e-5)
