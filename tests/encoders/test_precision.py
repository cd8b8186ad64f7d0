"""The automatic choice: fast, within its bound, honest about what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")
data = pytest.importorskip("skimage.data")

import retrieval  # noqa: E402
from indexers import ingest  # noqa: E402
from retrieval.encoders import load, precision  # noqa: E402
from retrieval.encoders.build import build  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.precision import BOUND, fastest, similarity_change  # noqa: E402
from retrieval.encoders.runtimes.plan import FP32, available, parse  # noqa: E402
from retrieval.errors import EncoderError  # noqa: E402
from tests.encoders.checkpoints import FAMILIES  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return FAMILIES["dinov2"](tmp_path_factory.mktemp("checkpoint") / "dinov2")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    photo = Image.fromarray(data.astronaut())
    return [photo.crop((x, y, x + 128, y + 128)) for x in range(0, 384, 128) for y in (0, 128, 256)]


def test_similarity_change_is_the_largest_there_is():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert similarity_change(rows, rows) < 1e-6
    moved = rows.copy()
    moved[3] = moved[0]
    worst = max(
        abs(float(a[i] @ b[j]) - float(rows[i] @ rows[j]))
        for a, b in ((moved, rows), (moved, moved))
        for i in range(5)
        for j in range(5)
    )
    assert similarity_change(rows, moved) == pytest.approx(worst, abs=1e-6)


def test_the_choice_is_within_its_bound_and_never_slower(folder, pictures):
    lines: list[str] = []
    encoder, choice = fastest(open_folder(folder), pictures, device="cpu", tell=lines.append)
    plain = choice.trials[0]
    assert plain.plan == "torch-fp32"
    tried = {trial.plan for trial in choice.trials}
    assert tried == {str(plan) for plan in available("cpu")}
    assert len(lines) == len(tried) - 1
    [chosen] = [trial for trial in choice.trials if trial.plan == choice.plan]
    assert chosen.change <= BOUND
    usable = [trial for trial in choice.trials if not trial.failure]
    assert chosen is plain or chosen.images_per_s == max(t.images_per_s for t in usable)
    assert chosen.images_per_s >= plain.images_per_s
    expected = build(open_folder(folder), FP32, "cpu").encode_images(pictures)
    assert similarity_change(expected, encoder.encode_images(pictures)) <= BOUND


def test_a_bound_that_nothing_keeps_leaves_fp32(folder, pictures):
    _, choice = fastest(open_folder(folder), pictures, device="cpu", bound=1e-9)
    assert choice.plan == "torch-fp32"
    assert "nothing here is faster" in str(choice)
    broken = [trial for trial in choice.trials if "int8" in trial.plan]
    assert broken and all("changes similarities by" in trial.failure for trial in broken)


def test_too_few_pictures_measure_nothing(folder, pictures):
    encoder, choice = fastest(open_folder(folder), pictures[:3], device="cpu")
    assert (choice.plan, choice.trials) == ("torch-fp32", ())
    assert "too few" in str(choice)
    assert encoder.runtime == "torch-cpu-fp32"


def test_the_winner_is_remembered_and_measured_again(folder, pictures, tmp_path):
    checkpoint = open_folder(folder)
    _, first = fastest(checkpoint, pictures, device="cpu")
    [note] = (tmp_path / "cache" / "choices").iterdir()
    told = json.loads(note.read_text())
    assert told["plan"] == first.plan

    told["plan"] = "onnxruntime-fp32"  # as if that had won
    note.write_text(json.dumps(told))
    lines: list[str] = []
    encoder, again = fastest(checkpoint, pictures, device="cpu", tell=lines.append)
    assert (again.plan, encoder.runtime, lines) == ("onnxruntime-fp32", "onnxruntime-cpu-fp32", [])
    assert again.pictures == len(pictures)

    told["plan"] = "onnxruntime-int8"  # not exact enough for this bound: all are tried again
    note.write_text(json.dumps(told))
    _, strict = fastest(checkpoint, pictures, device="cpu", bound=1e-9)
    assert strict.plan == "torch-fp32"
    note.write_text("{")
    _, anew = fastest(checkpoint, pictures, device="cpu")
    assert {trial.plan for trial in anew.trials} == {trial.plan for trial in first.trials}


def test_other_weights_choose_for_themselves(folder, pictures, tmp_path):
    checkpoint = open_folder(folder)
    other = replace(checkpoint, spec=replace(checkpoint.spec, pooling="mean"))
    notes = {precision._note(c, available("cpu"), "cpu") for c in (checkpoint, other)}
    assert len(notes) == 2


def test_ingestion_chooses_says_so_and_records_it(folder, pictures, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(photos / f"{number}.png")
    lines: list[str] = []
    target = tmp_path / "c.lance"
    report = ingest(
        photos, target, encoders=[str(folder)], precision="onnxruntime-int8", tell=lines.append
    )
    assert report.added == len(pictures)
    plain = load(str(folder), device="cpu").encode_images(pictures)
    collection = retrieval.open(target)
    [space] = collection.spaces.values()
    assert "onnxruntime-cpu-int8" in space.runtime
    ids = {
        int(Path(r.uri).stem): r.image_id for r in collection.store.records(collection.store.ids())
    }
    stored = collection.store.vectors_of(space.name, [ids[n] for n in range(len(pictures))])
    cosines = (stored * plain).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.min() < 0.9999999  # int8 it was

    (photos / "more.png").write_bytes((photos / "0.png").read_bytes() + b"\0")
    ingest(photos, target, precision="auto", tell=lines.append)
    assert any("runs as" in line for line in lines)
    assert retrieval.open(target).spaces[space.name].runtime.startswith("onnxruntime-cpu-int8")


def test_a_precision_that_is_none_says_which_there_are(folder):
    with pytest.raises(EncoderError, match="there are auto, fp32"):
        load(str(folder), precision="float8")
    with pytest.raises(EncoderError, match="there are auto, fp32"):
        load("pocket-visual", precision="float8")
    lines: list[str] = []
    assert load("pocket-visual", precision="int8", tell=lines.append).runtime in lines[0]
    assert load("pocket-visual", precision="auto").spec.name == "pocket-visual"
    assert str(parse("openvino-bf16")) == "openvino-bf16"


@pytest.fixture(scope="module")
def portable(folder, tmp_path_factory) -> Path:
    from retrieval.encoders.export import export

    return export(open_folder(folder), tmp_path_factory.mktemp("portable") / "dinov2").folder


def test_graphs_choose_among_what_runs_them_where_torch_has_a_better_device(
    portable, pictures, monkeypatch
):
    import torch

    # As on a Mac: torch takes its GPU, ONNX Runtime here has none for it.
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    _, choice = fastest(open_folder(portable), pictures)
    assert choice.trials[0].plan == "onnxruntime-fp32"
    assert {t.plan for t in choice.trials} == {
        str(p) for p in available("cpu") if not p.runtime.startswith("torch")
    }


@pytest.mark.parametrize("device", ["mps", "gpu"])
def test_a_device_that_nothing_can_use_is_told(portable, folder, pictures, device):
    with pytest.raises(EncoderError, match=f"does not run on {device}"):
        fastest(open_folder(portable), pictures, device=device)
    with pytest.raises(EncoderError, match="does not run on gpu"):
        fastest(open_folder(folder), pictures, device="gpu")


@pytest.mark.parametrize(
    "damage",
    [
        {"plan": "nonsense"},
        {"plan": "onnxruntime-int8", "trials": []},
        {"plan": ["fp32"]},
        {"trials": [{"plan": "torch-fp32"}]},
    ],
)
def test_a_damaged_note_is_not_believed(folder, pictures, tmp_path, damage):
    checkpoint, plans = open_folder(folder), available("cpu")
    whole = {
        "plan": "torch-fp32",
        "trials": [{"plan": "torch-fp32", "images_per_s": 2.0, "change": 0.0, "failure": ""}],
    }
    note = precision._note(checkpoint, plans, "cpu")
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps(whole))
    assert precision._recall(note, plans) is not None
    note.write_text(json.dumps({**whole, **damage}))
    assert precision._recall(note, plans) is None


def test_other_preprocessing_chooses_for_itself(folder):
    checkpoint = open_folder(folder)
    smaller = replace(checkpoint.spec.preprocess, resize_to=40)
    other = replace(checkpoint, spec=replace(checkpoint.spec, preprocess=smaller))
    notes = {precision._note(c, available("cpu"), "cpu") for c in (checkpoint, other)}
    assert len(notes) == 2
