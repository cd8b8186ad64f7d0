"""Distillation with real training: small, but whole."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from indexers.distill import DistillInterrupted, DistillReport, Progress, distill
from retrieval.encoders import TextEncoder, load
from retrieval.encoders.base import unit_rows
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderError
from tests.ingest.distil_child import EPOCHS, MoodTeacher, few_words
from tests.pictures import picture, write_pictures

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = 48
KILLS = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        from indexers.distill import texts

        patch.setattr(texts, "_PAIRS", texts._PAIRS)
        patch.setattr(texts, "_english", texts._english)
        few_words()
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Photos, their captions and their labels."""
    folder = tmp_path_factory.mktemp("distil")
    photos, labels = folder / "photos", folder / "labels.csv"
    paths = write_pictures(photos, PHOTOS)
    red = [np.asarray(Image.open(path).convert("RGB"))[..., 0].mean() for path in paths]
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "kind", "split"])
        for at, path in enumerate(paths):
            kind = "warm" if red[at] > np.median(red) else "cold"
            writer.writerow([path, kind, "test" if at % 4 == 0 else "train"])
    captions = folder / "captions.csv"
    with captions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption"])
        for at, path in enumerate(paths):
            writer.writerow([path, f"a {['dog', 'cat', 'boat', 'tree'][at % 4]} in the snow"])
    return photos, captions, labels


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> tuple[DistillReport, list[Progress]]:
    photos, captions, labels = data
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("students") / "mood"
    report = distill(
        MoodTeacher(),
        photos,
        out,
        labels=f"{labels}:kind",
        captions=captions,
        epochs=4 * EPOCHS,
        watch=seen.append,
    )
    return report, seen


def test_the_student_comes_to_agree_with_its_teacher(made):
    report, seen = made
    for side in ("image side learns", "text side learns"):
        losses = [now.loss for now in seen if now.stage == side]
        assert losses[-1] < 0.7 * losses[0]
    assert (report.photos, report.held_out, report.failed) == (36, 12, 0)
    assert report.image["cosine"] > 0.5
    assert set(report.knn) == {"student", "teacher"} and report.knn["teacher"] > 0.7
    assert report.text["cosine"] > 0.5
    assert 1e6 < report.parameters < 5e6


def test_the_report_tells_of_int8_and_speed(made):
    report, _ = made
    assert report.precision in ("int8", "fp32")
    assert 0.9 < report.int8["cosine_to_fp32"] < 1
    assert all(value > 0 for value in (*report.int8.values(), *report.speed.values()))
    assert report.speed["student_ms"] >= report.speed["student_forward_ms"]


def test_the_folder_is_an_encoder_in_the_teacher_s_space(made, data):
    report, _ = made
    student, teacher = load(report.out), MoodTeacher()
    assert isinstance(student, TextEncoder)
    assert student.spec.dim == teacher.spec.dim and student.spec.prompt == teacher.spec.prompt
    held_out = [Image.open(path).convert("RGB") for path in sorted(data[0].iterdir())[::4]]
    mine, theirs = student.encode_images(held_out), teacher.encode_images(held_out)
    assert (mine * theirs).sum(1).mean() == pytest.approx(report.image["cosine"], abs=1e-4)
    one_by_one = np.concatenate([student.encode_images([each]) for each in held_out])
    np.testing.assert_allclose(mine, one_by_one, atol=1e-5)
    words = ["a dog", "a boat in the snow and a tree by the river", "", "Ünicode 🐕"]
    together = student.encode_texts(words)
    np.testing.assert_allclose(
        together, np.concatenate([student.encode_texts([text]) for text in words]), atol=1e-5
    )
    folder = Path(report.out)
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.json", "image.onnx", "text.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert not folder.with_name("mood.training").exists()


def test_done_is_done_and_another_plan_is_refused(made, data):
    report, _ = made
    photos, captions, labels = data
    seen: list[Progress] = []
    arguments = {"labels": f"{labels}:kind", "captions": captions, "watch": seen.append}
    again = distill(MoodTeacher(), photos, report.out, epochs=4 * EPOCHS, **arguments)
    assert again == report and not seen
    before = Path(report.out, "encoder.json").read_bytes()
    with pytest.raises(EncoderError, match=r"holds another student, of other .*seed"):
        distill(MoodTeacher(), photos, report.out, epochs=4 * EPOCHS, seed=1, **arguments)
    assert Path(report.out, "encoder.json").read_bytes() == before


def test_a_collection_is_indexed_and_searched_with_the_student(made, data, tmp_path):
    from app.main import app

    report, _ = made

    def run(*arguments: object) -> dict:
        done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    where = tmp_path / "c.lance"
    counts = run("index", data[0], "-c", where, "--encoder", report.out, "--json")
    assert (counts["added"], counts["failed"]) == (PHOTOS, 0)
    wanted = sorted(data[0].iterdir())[7]
    [first, *_] = run("search", "-c", where, "--image", wanted, "--json")["hits"]
    assert first["uri"] == str(wanted) and first["score"] > 0.999
    assert len(run("search", "a dog in the snow", "-c", where, "-k", 5, "--json")["hits"]) == 5


def test_a_stopped_run_goes_on_and_ends_like_a_clean_one(data, tmp_path):
    photos, captions, _ = data
    clean = distill(MoodTeacher(), photos, tmp_path / "clean", captions=captions, epochs=EPOCHS)
    for stage in ("teacher sees photos", "image side learns", "text side learns"):
        stop = threading.Event()

        def watch(now: Progress, stage: str = stage, stop: threading.Event = stop) -> None:
            if now.stage == stage and now.done >= now.total // 2:
                stop.set()

        with pytest.raises(DistillInterrupted, match="same command goes on"):
            distill(
                MoodTeacher(), photos, tmp_path / "stopped", captions=captions, epochs=EPOCHS,
                watch=watch, stop=stop,
            )  # fmt: skip
        assert not (tmp_path / "stopped").exists()
    with pytest.raises(EncoderError, match=r"stopped\.training belongs to another student"):
        distill(MoodTeacher(), photos, tmp_path / "stopped", captions=captions, epochs=1)
    rest: list[Progress] = []
    stopped = distill(
        MoodTeacher(), photos, tmp_path / "stopped", captions=captions, epochs=EPOCHS,
        watch=rest.append,
    )  # fmt: skip
    assert {now.stage for now in rest} == {"text side learns", "student is compared"} and rest[
        0
    ].done > 1
    same_student(clean.out, stopped.out)


def test_killed_at_random_moments_it_ends_like_a_clean_one(data, tmp_path):
    photos, captions, _ = data
    clean = distill(MoodTeacher(), photos, tmp_path / "clean", captions=captions, epochs=EPOCHS)
    moments = random.Random(os.getpid())
    for _ in range(KILLS):
        child = start(photos, captions, tmp_path / "killed")
        for _ in range(moments.randrange(1, 12)):
            child.stdout.readline()
        time.sleep(moments.uniform(0, 0.3))
        child.kill()
        child.communicate()
    child = start(photos, captions, tmp_path / "killed")
    child.communicate(timeout=600)
    assert child.returncode == 0
    same_student(clean.out, tmp_path / "killed")


def test_the_command_line_is_interrupted_and_goes_on(data, tmp_path):
    out = tmp_path / "small"
    command = [sys.executable, "-m", "app", "distill", "--teacher", "pocket-visual"]
    command += ["--data", str(data[0]), "--out", str(out), "--epochs", "3", "--json"]
    options = {"cwd": ROOT, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdout=pipe, stderr=pipe, **options)
    while not (tmp_path / "small.training" / "targets.npy").exists():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    said, complained = child.communicate(timeout=300)
    assert child.returncode == 130 and not said
    assert "the same command goes on" in complained and not out.exists()
    done = subprocess.run(command, capture_output=True, check=True, **options)
    report = json.loads(done.stdout)
    assert report["out"] == str(out) and report["photos"] + report["held_out"] == PHOTOS
    assert report["text"] is None and report["knn"] is None
    told = subprocess.run([*command[:-1]], capture_output=True, check=True, **options)
    assert str(out) in told.stdout and "times cheaper" in told.stderr


def start(photos: Path, captions: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ingest.distil_child", *map(str, (photos, captions, out))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def same_student(one: str | Path, two: str | Path) -> None:
    pictures = [picture(seed, (64, 48)) for seed in range(900, 908)]
    words = ["a dog in the snow", "river"]
    a, b = load(str(one)), load(str(two))
    assert isinstance(a, TextEncoder) and isinstance(b, TextEncoder)
    np.testing.assert_allclose(a.encode_images(pictures), b.encode_images(pictures), atol=0.02)
    np.testing.assert_allclose(a.encode_texts(words), b.encode_texts(words), atol=1e-3)


def test_the_student_starts_as_the_pocket_backbone(monkeypatch, shared_data):
    """With all blocks and at full size its features are those of the original, nearly.

    The original pads one side more than the other at every stride, so the student is shifted.
    """
    from indexers.distill.training import image
    from retrieval.encoders import Preprocess
    from retrieval.encoders.pocket import encoder, weights
    from retrieval.encoders.pocket.specs import PREPROCESS

    whole = tuple((there, there, *rest) for there, _, *rest in image._STAGES)
    monkeypatch.setattr(image, "_STAGES", whole)
    student = image.pretrained(8, weights.load(), 0).eval()
    student.head = torch.nn.Identity()
    files = sorted((shared_data("clothing") / "images").glob("*.jpg"))[:8]
    photos = [Image.open(path).convert("RGB") for path in files]
    odd = Preprocess(225, "shortest", 225, "bicubic", PREPROCESS.mean, PREPROCESS.std)
    with torch.inference_mode():
        mine = student(torch.from_numpy(odd.inputs(photos)["pixels"])).numpy()
    theirs = encoder.PocketTrunk().features(photos)[:, :1280]
    cosine = unit_rows(mine) @ unit_rows(theirs).T
    assert (cosine.argmax(1) == np.arange(8)).all() and cosine.diagonal().min() > 0.85


def test_int8_is_near_fp32_and_fp32_is_torch(tmp_path, shared_data):
    from indexers.distill import int8
    from indexers.distill.photos import SIDE
    from indexers.distill.training.image import pretrained
    from retrieval.encoders import Preprocess
    from retrieval.encoders.pocket import weights
    from retrieval.encoders.pocket.specs import PREPROCESS

    files = sorted((shared_data("clothing") / "images").glob("*.jpg"))[:24]
    small = Preprocess(SIDE, "shortest", SIDE, "bilinear", PREPROCESS.mean, PREPROCESS.std)
    pixels = small.inputs([Image.open(path).convert("RGB") for path in files])["pixels"]
    student = pretrained(32, weights.load(), 0).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own ways
        torch.onnx.export(
            student,
            (torch.from_numpy(pixels[:2]),),
            str(tmp_path / "whole.onnx"),
            input_names=["pixels"],
            output_names=["embedding"],
            dynamic_axes={"pixels": {0: "n"}, "embedding": {0: "n"}},
            dynamo=False,
        )
    int8.quantise(tmp_path / "whole.onnx", tmp_path / "small.onnx", pixels[:16])
    with torch.inference_mode():
        expected = unit_rows(student(torch.from_numpy(pixels)).numpy())
    for name, least in (("whole", 0.99999), ("small", 0.95)):
        graph = OnnxGraph(tmp_path / f"{name}.onnx")
        rows = unit_rows(graph.run({"pixels": pixels}, ["embedding"])[0])
        assert (rows * expected).sum(1).min() > least
    size = {name: (tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "small")}
    assert size["small"] < 0.5 * size["whole"]
