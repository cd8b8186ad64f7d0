"""Every runtime gives what torch gives, and says what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("timm")
pytest.importorskip("open_clip")
pytest.importorskip("skimage.data")

from retrieval.encoders.build import build, torch_encoder  # noqa: E402
from retrieval.encoders.checkpoints import open_folder  # noqa: E402
from retrieval.encoders.export import exported  # noqa: E402
from retrieval.encoders.network import NetworkEncoder, NetworkTextEncoder  # noqa: E402
from retrieval.encoders.runtimes import cpu  # noqa: E402
from retrieval.encoders.runtimes.plan import parse  # noqa: E402
from retrieval.encoders.runtimes.torch import TorchGraph  # noqa: E402
from retrieval.errors import EncoderError, EncoderUnavailable  # noqa: E402
from tests.encoders import open_clip_checkpoints, timm_checkpoints  # noqa: E402
from tests.encoders.checkpoints import BACKBONES, FAMILIES, SENTENCES  # noqa: E402
from tests.encoders.photos import varied  # noqa: E402

pytestmark = pytest.mark.slow

WRITERS: dict[str, Callable[[Path], Path]] = {
    **FAMILIES,
    **BACKBONES,
    **{
        f"timm_{name}": (lambda folder, name=name: timm_checkpoints.write(folder, name))
        for name in timm_checkpoints.ARCHITECTURES
    },
    **{
        f"open_clip_{name}": (lambda folder, name=name: open_clip_checkpoints.write(folder, name))
        for name in open_clip_checkpoints.MODELS
    },
}
# torch's exporter gets its rotary embedding wrong, which the comparison finds.
NOT_IN_ONNX = {"open_clip_attention_2d"}
# Its last pooling is larger than its map, which OpenVINO does not take.
NOT_IN_OPENVINO = {"efficientnet"}
# Random normalisation layers blow rounding up until nothing but noise is left.
UNSTEADY = {"efficientnet", "levit"}
TEXTS = [*SENTENCES, "zebra", "two red cars " * 30]
Rows = np.ndarray


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(autouse=True)
def _own_cache(root, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(root / "cache"))


@pytest.fixture
def opened(root) -> Callable[[str], object]:
    def checkpoint(name: str):
        folder = root / name
        return open_folder(folder if folder.exists() else WRITERS[name](folder))

    return checkpoint


def answers(encoder: NetworkEncoder) -> dict[str, Rows]:
    """Everything that it can encode, as float64 unit rows."""
    found = {"images": encoder.encode_images(varied())}
    if encoder.spec.patch_px is not None:
        tokens = encoder.encode_patches(varied())
        found["patches"] = np.concatenate(
            [tokens.grid(at).reshape(-1, tokens.tokens.shape[-1]) for at in range(len(varied()))]
        )
    if isinstance(encoder, NetworkTextEncoder):
        found["texts"] = encoder.encode_texts(TEXTS)
    return {what: unit(rows.astype(np.float64)) for what, rows in found.items()}


def unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_near(name: str, found: dict[str, Rows], reference: dict[str, Rows], cosine: float):
    assert found.keys() == reference.keys()
    for what, rows in found.items():
        least = (rows * reference[what]).sum(axis=1).min()
        change = ""
        if what == "images":
            before, after = reference[what] @ reference[what].T, rows @ rows.T
            change = f", similarities changed by {np.abs(after - before).max():.4f}"
        print(f"{name} {what}: 1 - cos {1 - least:.1e}{change}")
        assert least >= cosine, f"{name} {what}"


@pytest.mark.parametrize("name", sorted(set(WRITERS) - NOT_IN_ONNX))
def test_runtimes_agree_with_torch(name, opened):
    checkpoint = opened(name)
    reference = answers(torch_encoder(checkpoint, device="cpu"))
    onnx = build(checkpoint, parse("onnxruntime-fp32"), "cpu")
    assert onnx.runtime == "onnxruntime-cpu-fp32"
    check_near(f"{name} onnxruntime fp32", answers(onnx), reference, 0.999999)
    bound = -1 if name in UNSTEADY else 0.995
    small = build(checkpoint, parse("int8"), "cpu")
    assert small.runtime == "onnxruntime-cpu-int8"
    check_near(f"{name} onnxruntime int8", answers(small), reference, bound)
    half = build(checkpoint, parse("bf16"), "cpu")
    assert half.runtime == "torch-cpu-bf16"
    check_near(f"{name} torch bf16", answers(half), reference, bound)


@pytest.mark.parametrize("name", sorted(set(WRITERS) - NOT_IN_ONNX - NOT_IN_OPENVINO))
def test_openvino_agrees_with_torch(name, opened):
    pytest.importorskip("openvino")
    checkpoint = opened(name)
    reference = answers(torch_encoder(checkpoint, device="cpu"))
    exact = build(checkpoint, parse("openvino-fp32"), "cpu")
    assert exact.runtime == "openvino-cpu-fp32"
    check_near(f"{name} openvino fp32", answers(exact), reference, 0.999999)
    half = build(checkpoint, parse("openvino-bf16"), "cpu")
    bound = -1 if name in UNSTEADY else 0.995
    check_near(f"{name} openvino bf16", answers(half), reference, bound)


@pytest.mark.parametrize("name", sorted(NOT_IN_ONNX))
def test_what_cannot_be_exported_is_sent_to_torch(name, opened):
    with pytest.raises(EncoderError, match="run this encoder with a precision of torch"):
        build(opened(name), parse("int8"), "cpu")


@pytest.mark.parametrize("name", ["dinov2", "siglip", "naflex"])
def test_openvino_learns_8_bit_integers_from_pictures(name, opened):
    pytest.importorskip("nncf")
    checkpoint = opened(name)
    plan = parse("openvino-int8")
    with pytest.raises(EncoderError, match="give a sample"):
        build(checkpoint, plan, "cpu")
    reference = answers(torch_encoder(checkpoint, device="cpu"))
    small = build(checkpoint, plan, "cpu", varied())
    check_near(f"{name} openvino int8", answers(small), reference, 0.95)

    alone = np.concatenate([small.encode_images([picture]) for picture in varied()[:4]])
    np.testing.assert_allclose(alone, small.encode_images(varied()[:4]), atol=2e-3)


def test_quantised_graphs_are_made_once(opened, monkeypatch):
    pytest.importorskip("nncf")
    checkpoint = opened("dinov2")
    first = build(checkpoint, parse("openvino-int8"), "cpu", varied()[:4])

    def never(*_args, **_options):
        raise AssertionError("made again")

    monkeypatch.setattr(subprocess, "run", never)
    again = build(checkpoint, parse("openvino-int8"), "cpu", varied()[:4])
    np.testing.assert_array_equal(
        again.encode_images(varied()[:3]), first.encode_images(varied()[:3])
    )
    # The pictures that came first calibrate it, so that the next run has the same network.
    other = build(checkpoint, parse("openvino-int8"), "cpu", varied()[1:5])
    np.testing.assert_array_equal(
        other.encode_images(varied()[:3]), first.encode_images(varied()[:3])
    )


@pytest.mark.parametrize("plan", ["onnxruntime-fp32", "openvino-fp32", "fp32", "int8"])
def test_batches_and_threads_change_nothing(plan, opened):
    if plan.startswith("openvino"):
        pytest.importorskip("openvino")
    encoder = build(opened("clip"), parse(plan), "cpu")
    pictures = varied()[:12]
    whole = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    print(f"{plan}: alone or together differ by {np.abs(alone - whole).max():.1e}")
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    with ThreadPoolExecutor(6) as pool:
        for rows in pool.map(lambda _: encoder.encode_images(pictures), range(12)):
            np.testing.assert_allclose(rows, whole, atol=1e-5)


def test_weights_that_layers_share_are_quantised_once(opened):
    import onnx

    from retrieval.encoders.quantise import quantised

    graph = exported(opened("siglip")).graph("patches").path
    gemms = [node for node in onnx.load(graph).graph.node if node.op_type == "Gemm"]
    assert len({node.input[1] for node in gemms}) < len(gemms)
    small = onnx.load(quantised(graph)).graph
    products = [node for node in small.node if node.op_type == "MatMulIntegerToFloat"]
    assert len({node.input[1] for node in products}) < len(products)
    # What is left are products of two activations, and of what is computed from weights.
    left = [node for node in small.node if node.op_type in ("MatMul", "Gemm")]
    assert len(left) < len(products)
    assert not {node.input[1] for node in left} & {tensor.name for tensor in small.initializer}


def test_compiled_gives_the_same(opened):
    if not cpu.has_compiler():
        pytest.skip("needs a C++ compiler")
    checkpoint = opened("dinov2")
    reference = answers(torch_encoder(checkpoint, device="cpu"))
    compiled = torch_encoder(checkpoint, device="cpu", compiled=True)
    assert compiled.runtime == "torch-compile-cpu-fp32"
    check_near("dinov2 torch compiled", answers(compiled), reference, 0.999999)
    one = compiled.encode_images(varied()[:1])
    np.testing.assert_allclose(one[0], reference["images"][0], atol=1e-5)


def test_tf32_is_off_while_any_thread_computes_in_fp32():
    from retrieval.encoders.runtimes.torch import _without_tf32

    assert torch.backends.cudnn.allow_tf32
    first, second = _without_tf32(), _without_tf32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


def test_a_device_that_is_not_there_is_named(opened):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(EncoderUnavailable, match="take cpu"):
        build(opened("dinov2"), parse("fp32"), "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_gives_what_the_cpu_gives(precision, opened):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    checkpoint = opened("siglip")
    reference = answers(torch_encoder(checkpoint, device="cpu"))
    encoder = build(checkpoint, parse(precision), "cuda")
    bound = 0.99999 if precision == "fp32" else 0.995
    check_near(f"siglip cuda {precision}", answers(encoder), reference, bound)
    with ThreadPoolExecutor(4) as pool:
        whole = encoder.encode_images(varied())
        for rows in pool.map(lambda _: encoder.encode_images(varied()), range(20)):
            np.testing.assert_allclose(rows, whole, atol=1e-5 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("said", ["can't allocate memory", "MPS backend out of memory"])
def test_memory_errors_of_every_backend_ask_for_a_smaller_batch(said, opened):
    tower = opened("vit").towers().image

    def full(*_args):
        raise RuntimeError(f"[enforce fail] DefaultCPUAllocator: {said}: you tried")

    tower.register_forward_pre_hook(full)
    graph = TorchGraph(tower, "cpu")
    with pytest.raises(MemoryError):
        graph.run({"pixels": np.zeros((1, 3, 32, 32), np.float32)}, ["embedding"])


def test_openvino_reports_to_nobody(tmp_path):
    """Both packages send events when they are imported, and keep an id in the home folder."""
    pytest.importorskip("openvino")
    code = (
        "import sys\n"
        "from retrieval.encoders.runtimes.openvino import package\n"
        "package('openvino').Core()\n"
        "print(*[n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []
