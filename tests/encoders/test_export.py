"""Exports to ONNX: equal to the network, whole or not there, made once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from retrieval.encoders import tracing  # noqa: E402
from retrieval.encoders.build import build, torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import Checkpoint, open_folder  # noqa: E402
from retrieval.encoders.export import export, exported  # noqa: E402
from retrieval.encoders.made import facts_of  # noqa: E402
from retrieval.encoders.network import NetworkTextEncoder  # noqa: E402
from retrieval.encoders.runtimes.plan import parse  # noqa: E402
from retrieval.encoders.towers import Tower, Towers  # noqa: E402
from retrieval.errors import EncoderError  # noqa: E402
from tests.encoders.checkpoints import SENTENCES, clip, dinov2, siglip  # noqa: E402

pytestmark = pytest.mark.slow

ONNX = parse("onnxruntime-fp32")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "dinov2": dinov2(root / "dinov2"),
        "siglip": siglip(root / "siglip"),
        "clip": clip(root / "clip"),
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 60, 50, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def untorched(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint, whose network must not be needed."""

    def never() -> Towers:
        raise AssertionError("the network was read")

    return replace(checkpoint, towers=never)


def run(code: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_folder_for_people_has_all_towers_and_a_report(folders, tmp_path, pictures):
    checkpoint = open_folder(folders["siglip"])
    report = export(checkpoint, tmp_path / "out")
    assert report.folder == tmp_path / "out"
    assert [each.tower for each in report.parity] == ["image", "patches", "text"]
    for each in report.parity:
        print(each)
        assert each.min_cosine > 0.999999
        assert 0 < each.max_abs_difference < 1e-4
        assert each.inputs == 8
    named = {path.name for path in report.folder.iterdir()}
    assert named == {"encoder.json", "tokenizer.json", "image.onnx", "patches.onnx", "text.onnx"}
    with pytest.raises(EncoderError, match="not empty"):
        export(checkpoint, tmp_path / "out")


def test_what_was_exported_runs_without_torch(folders, tmp_path, pictures):
    checkpoint = open_folder(folders["siglip"])
    reference = torch_encoder(checkpoint, device="cpu")
    assert isinstance(reference, NetworkTextEncoder)
    folder = export(checkpoint, tmp_path / "out").folder
    for at, picture in enumerate(pictures):
        picture.save(tmp_path / f"{at}.png")
    code = """
import sys
for name in ("torch", "transformers", "timm", "open_clip"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
from PIL import Image
from retrieval.encoders import load
folder, out, *texts = sys.argv[1:]
encoder = load(folder)
pictures = [Image.open(path) for path in sorted(Path(out).glob("*.png"))]
tokens = encoder.encode_patches(pictures)
np.savez(f"{out}/rows.npz", images=encoder.encode_images(pictures),
         texts=encoder.encode_texts(texts), patches=tokens.tokens, grids=tokens.grids)
print(encoder.weights_hash, encoder.spec.logit_scale, encoder.spec.logit_bias)
"""
    texts = [*SENTENCES, "zebra"]
    out, _ = (child := run(code, folder, tmp_path, *texts)).communicate()
    assert child.returncode == 0
    digest, scale, bias = out.split()
    assert digest == checkpoint.weights_hash
    assert float(scale) == pytest.approx(reference.spec.logit_scale)
    assert float(bias) == pytest.approx(reference.spec.logit_bias)
    rows = np.load(tmp_path / "rows.npz")
    np.testing.assert_allclose(rows["images"], reference.encode_images(pictures), atol=1e-5)
    np.testing.assert_allclose(rows["texts"], reference.encode_texts(texts), atol=1e-5)
    expected = reference.encode_patches(pictures)
    np.testing.assert_allclose(rows["patches"], expected.tokens, atol=1e-4)
    np.testing.assert_array_equal(rows["grids"], expected.grids)


def test_the_cache_spares_the_network_the_next_time(folders, pictures):
    checkpoint = open_folder(folders["siglip"])
    first = build(checkpoint, ONNX, "cpu")
    again = build(untorched(checkpoint), ONNX, "cpu")
    np.testing.assert_array_equal(again.encode_images(pictures), first.encode_images(pictures))
    assert again.spec == first.spec
    assert again.spec.logit_scale == torch_encoder(checkpoint, device="cpu").spec.logit_scale
    report = export(untorched(checkpoint))
    assert [each.tower for each in report.parity] == ["image", "text"]


def test_the_graph_for_patches_is_made_when_it_is_needed(folders, cache, pictures):
    checkpoint = open_folder(folders["dinov2"])
    encoder = build(checkpoint, ONNX, "cpu")
    encoder.encode_images(pictures)
    assert not list(cache.rglob("patches.onnx"))
    found = encoder.encode_patches(pictures)
    assert len(list(cache.rglob("patches.onnx"))) == 1
    expected = torch_encoder(checkpoint, device="cpu").encode_patches(pictures)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-4)


def test_another_pooling_of_the_same_weights_is_another_export(folders, pictures):
    cls, mean = (open_folder(folders["dinov2"], pooling) for pooling in ("cls", "mean"))
    a, b = (build(each, ONNX, "cpu").encode_images(pictures) for each in (cls, mean))
    assert np.abs(a - b).max() > 0.01
    reference = torch_encoder(mean, device="cpu").encode_images(pictures)
    np.testing.assert_allclose(b, reference, atol=1e-5)


def test_the_same_weights_with_another_configuration_are_another_network(
    folders, tmp_path, pictures
):
    shutil.copytree(folders["dinov2"], other := tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "quick_gelu"}))
    for folder in (folders["dinov2"], other):
        checkpoint = open_folder(folder)
        reference = torch_encoder(checkpoint, device="cpu").encode_images(pictures)
        rows = build(checkpoint, ONNX, "cpu").encode_images(pictures)
        np.testing.assert_allclose(rows, reference, atol=1e-5)


def test_texts_are_padded_for_a_graph_that_takes_one_length(folders, pictures):
    checkpoint = open_folder(folders["clip"])
    towers = checkpoint.towers()

    class OneLength(Tower):
        inputs = ("ids",)

        def __init__(self) -> None:
            super().__init__()
            self.inner = towers.text

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(ids.reshape(-1, int(ids.shape[1])))

    stuck = replace(checkpoint, towers=lambda: replace(towers, text=OneLength()))
    encoder = build(stuck, ONNX, "cpu")
    reference = torch_encoder(checkpoint, device="cpu")
    texts = [*SENTENCES, "zebra", "", "two red cars " * 40]
    np.testing.assert_allclose(
        encoder.encode_texts(texts), reference.encode_texts(texts), atol=1e-5
    )
    facts = facts_of(exported(stuck).folder / "encoder.json")
    assert facts["text"]["fill"]


class Remembering(Tower):
    """A network whose tracing keeps what it should compute."""

    inputs = ("pixels",)

    def __init__(self, inner: Tower) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.inner(pixels) * torch.tensor(np.sign(pixels.mean((1, 2, 3)).numpy()))[:, None]


def test_an_export_that_gives_other_answers_is_refused(folders, cache):
    checkpoint = open_folder(folders["dinov2"])
    towers = checkpoint.towers()
    wrong = replace(towers, image=Remembering(towers.image))
    with pytest.raises(EncoderError, match=r"image .*ONNX"):
        exported(replace(checkpoint, towers=lambda: wrong))
    assert not list(cache.rglob("*.onnx"))


class Sorting(Tower):
    """A network with a step that ONNX does not have."""

    inputs = ("pixels",)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(pixels[:, 0] @ pixels[:, 0].mT).abs()


def test_a_network_that_cannot_be_exported_is_an_error_in_silence(folders, cache, capfd):
    checkpoint = open_folder(folders["dinov2"])
    towers = replace(checkpoint.towers(), image=Sorting())
    with pytest.raises(EncoderError, match="image as ONNX cannot be had"):
        exported(replace(checkpoint, towers=lambda: towers))
    assert capfd.readouterr().out == ""
    assert not list(cache.rglob("*.onnx"))


@pytest.mark.parametrize("harm", ["shorter", "a bit", "gone", "facts"])
def test_a_damaged_export_is_made_again(harm, folders, pictures):
    checkpoint = open_folder(folders["dinov2"])
    whole = build(checkpoint, ONNX, "cpu").encode_images(pictures)
    path = exported(checkpoint).graph("image").path
    data = bytearray(path.read_bytes())
    if harm == "shorter":
        path.write_bytes(data[:-100])
    elif harm == "a bit":
        data[len(data) // 2] ^= 16
        path.write_bytes(data)
    elif harm == "gone":
        path.unlink()
    else:
        path.with_name("encoder.json").write_text("{")
    again = build(checkpoint, ONNX, "cpu")
    np.testing.assert_allclose(again.encode_images(pictures), whole, atol=1e-6)
    assert build(untorched(checkpoint), ONNX, "cpu").runtime == "onnxruntime-cpu-fp32"
    assert not list(path.parent.parent.glob(".*.part"))


@pytest.mark.parametrize("runtime", ["onnxruntime-fp32", "int8", "openvino-fp32"])
def test_large_weights_lie_beside_the_graph(runtime, folders, monkeypatch, pictures):
    if runtime.startswith("openvino"):
        pytest.importorskip("openvino")
    monkeypatch.setattr(tracing, "_LARGE_BYTES", 1000)
    checkpoint = open_folder(folders["siglip"])
    encoder = build(checkpoint, parse(runtime), "cpu")
    folder = exported(checkpoint).folder
    named = {path.name for path in folder.iterdir()}
    assert {"image.onnx", "image.onnx.data", "text.onnx.data"} < named
    assert (folder / "image.onnx").stat().st_size < (folder / "image.onnx.data").stat().st_size
    assert not [path for path in folder.iterdir() if path.is_dir()]
    assert "image.onnx.data" in facts_of(folder / "encoder.json")["files"]
    reference = torch_encoder(checkpoint, device="cpu").encode_images(pictures)
    atol = 0.05 if runtime == "int8" else 1e-5
    np.testing.assert_allclose(encoder.encode_images(pictures), reference, atol=atol)


EXPORT = """
import sys
from dataclasses import replace
from pathlib import Path
from retrieval.encoders.checkpoints import open_folder
from retrieval.encoders.build import build
from retrieval.encoders.runtimes.plan import parse
from PIL import Image
folder, log = sys.argv[1:]
checkpoint = open_folder(Path(folder))
def towers():
    with open(log, "a") as file:
        file.write("made\\n")
    return checkpoint.towers()
print("ready", flush=True)
encoder = build(replace(checkpoint, towers=towers), parse("int8"), "cpu")
print(*encoder.encode_images([Image.new("RGB", (40, 40), "red")])[0].tolist())
"""


def test_six_processes_make_one_export(folders, tmp_path, cache):
    log = tmp_path / "log"
    children = [run(EXPORT, folders["dinov2"], log) for _ in range(6)]
    outs = [child.communicate()[0].split("ready\n") for child in children]
    assert [child.returncode for child in children] == [0] * 6
    assert len({rows for _, rows in outs}) == 1
    assert log.read_text() == "made\n"
    assert len(list(cache.glob("exports/*/image.onnx"))) == 1
    assert len(list(cache.glob("quantised/*/graph.onnx"))) == 1
    assert not list(cache.rglob("*.part"))


SLOW_EXPORT = """
import sys, time
from dataclasses import replace
from pathlib import Path
from retrieval.encoders import export, tracing
from retrieval.encoders.checkpoints import open_folder
compare = tracing._compare
def slow(*arguments):
    print("written", flush=True)
    time.sleep(600)
    return compare(*arguments)
tracing._compare = slow
export.exported(open_folder(Path(sys.argv[1])))
"""


def test_a_killed_export_leaves_nothing_that_is_taken_for_whole(folders, cache, pictures):
    checkpoint = open_folder(folders["dinov2"])
    child = run(SLOW_EXPORT, folders["dinov2"])
    assert child.stdout
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    left = list(cache.glob("exports/.*.part"))
    assert [path.name for path in left[0].iterdir()] == ["image.onnx"]
    assert not list(cache.glob("exports/*/encoder.json"))
    # Its turn ended with it: nobody waits.
    found = exported(checkpoint)
    assert facts_of(found.folder / "encoder.json")["files"]
    assert left[0].exists()

    old = time.time() - 2 * 3600
    os.utime(left[0], (old, old))
    exported(open_folder(folders["dinov2"], "mean"))
    assert not left[0].exists()


def test_a_cache_that_cannot_be_written_is_named(folders, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(EncoderError, match="RETRIEVAL_CACHE"):
        exported(open_folder(folders["dinov2"]))


def test_the_report_is_in_the_folder(folders, tmp_path):
    export(open_folder(folders["dinov2"]), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "encoder.json").read_text())
    assert told["format"] == 1
    assert [each["tower"] for each in told["parity"]] == ["image", "patches"]
    assert told["text"] is None
    assert set(told["files"]) == {"image.onnx", "patches.onnx"}
