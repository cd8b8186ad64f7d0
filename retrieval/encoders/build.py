"""From what is on disk to a running encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.encoders.checkpoints.packages import missing, require
from retrieval.encoders.checkpoints.portable import Portable
from retrieval.encoders.network import BATCH_SIZE, Feeds, NetworkEncoder, NetworkTextEncoder
from retrieval.encoders.quantise import calibrated, quantised
from retrieval.encoders.runtimes import Graph
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.encoders.runtimes.openvino import OpenVinoGraph
from retrieval.encoders.runtimes.plan import FP32, Plan, best_device, check
from retrieval.encoders.runtimes.renamed import RenamedGraph
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.encoders.base import EncoderSpec
    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.runtimes.plan import Precision
    from retrieval.encoders.tokens import Tokenizer

ONNX_FP32 = Plan("onnxruntime", "fp32")
OPENVINO_INT8 = Plan("openvino", "int8")
_SMALL_BYTES = 40_000_000


def build(
    found: Checkpoint | Portable,
    plan: Plan = FP32,
    device: str | None = None,
    sample: Sequence[Image.Image] | None = None,
) -> NetworkEncoder:
    """Run what a folder holds.

    Whatever does not run in torch is exported to ONNX first, once, into the cache; torch is not
    needed again after that.

    Args:
        found: what to run.
        plan: runtime and precision of the image side. ONNX graphs run in ONNX Runtime where fp32
            of torch is asked for.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the best that the runtime can use.
        sample: pictures of the kind that will be encoded, from which ``openvino-int8`` learns how
            large the numbers inside the network get.

    Returns:
        A :class:`~retrieval.encoders.network.NetworkTextEncoder` where there is a text side. Its
        spec has the logit scale and bias that the weights hold.

    Raises:
        EncoderUnavailable: if a package is missing.
        EncoderError: if the plan cannot run there, or files are damaged.
    """
    if isinstance(found, Portable):
        return portable_encoder(found, plan, device=device, sample=sample)
    if plan == FP32 and missing("torch"):
        plan = ONNX_FP32  # what was exported while torch was here still runs
    if plan.runtime in ("torch", "torch-compile"):
        compiled = plan.runtime == "torch-compile"
        return torch_encoder(found, device=device, precision=plan.precision, compiled=compiled)
    from retrieval.encoders.export import exported

    check(plan, device or best_device(plan))
    return portable_encoder(exported(found), plan, device=device, sample=sample)


def torch_encoder(
    checkpoint: Checkpoint,
    *,
    device: str | None = None,
    precision: Precision = "fp32",
    compiled: bool = False,
) -> NetworkEncoder:
    """Run a checkpoint in torch.

    Args:
        checkpoint: what to run.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the first of these that is there.
        precision: of the image side; texts are always encoded in fp32.
        compiled: whether ``torch.compile`` makes the image side faster before it first runs.

    Returns:
        As :func:`build`.

    Raises:
        EncoderUnavailable: if torch or the library of the checkpoint is not installed.
        EncoderError: if the weights are damaged.
    """
    require("torch")
    from retrieval.encoders.runtimes.torch import TorchGraph

    where = device or best_device()
    check(Plan("torch-compile" if compiled else "torch", precision), where)
    digest = checkpoint.weights_hash
    towers = checkpoint.towers()
    by_name = dict(towers)
    spec = replace(checkpoint.spec, logit_scale=towers.logit_scale, logit_bias=towers.logit_bias)
    image = TorchGraph(towers.image, where, precision, compiled=compiled)

    def open_graph(name: str) -> Graph:
        if name == "image":
            return image
        return TorchGraph(by_name[name], where, "fp32" if name == "text" else precision)

    tokenizer = checkpoint.tokenizer and checkpoint.tokenizer()
    return _encoder(spec, digest, image.runtime, open_graph, tokenizer)


def portable_encoder(
    found: Portable,
    plan: Plan = ONNX_FP32,
    *,
    device: str | None = None,
    sample: Sequence[Image.Image] | None = None,
    threads: int | None = None,
) -> NetworkEncoder:
    """Run ONNX graphs.

    Args:
        found: what to run.
        plan: runtime and precision; fp32 of torch stands for fp32.
        device: ``cuda`` or ``cpu``; by default the first of these that the runtime can use.
        sample: see :func:`build`.
        threads: cores that one call of ONNX Runtime on the CPU may use; 0 for all; by default one
            for a small network, of which many calls at once make better use of the cores.

    Raises:
        As :func:`build`.
    """
    plan = ONNX_FP32 if plan == FP32 else plan
    if plan.runtime in ("torch", "torch-compile"):
        raise EncoderError(
            f"{found.spec.name} is an ONNX graph, which torch does not run: take precision fp32, "
            "int8 or openvino-bf16"
        )
    where = device or best_device(plan)
    check(plan, where)
    if threads is None:
        threads = 1 if found.graph("image").path.stat().st_size < _SMALL_BYTES else 0
    open_one = _opener(plan, where, threads, found, sample)

    def open_graph(name: str) -> Graph:
        file = found.graph(name)
        graph: Graph
        graph = OnnxGraph(file.path, threads=threads) if name == "text" else open_one(file.path)
        return RenamedGraph(graph, file.names, file.pooling) if file.names else graph

    image = open_graph("image")
    tokenizer = found.tokenizer and found.tokenizer()
    return _encoder(
        found.spec,
        found.weights_hash,
        image.runtime,
        lambda name: image if name == "image" else open_graph(name),
        tokenizer,
        found.batch_size or BATCH_SIZE,
    )


def _opener(
    plan: Plan,
    device: str,
    threads: int,
    found: Portable,
    sample: Sequence[Image.Image] | None,
) -> Callable[[Path], Graph]:
    """What opens a graph of the image side as the plan says."""
    if plan.runtime == "onnxruntime" and plan.precision == "int8":
        return lambda path: OnnxGraph(quantised(path), threads=threads, precision="int8")
    if plan == OPENVINO_INT8:
        feeds = _examples(found.spec, sample or ())
        return lambda path: OpenVinoGraph(calibrated(path, feeds), "int8")
    if plan.runtime == "openvino":
        return lambda path: OpenVinoGraph(path, plan.precision)
    tensorrt = plan.runtime == "tensorrt"
    return lambda path: OnnxGraph(
        path, threads=threads, device=device, precision=plan.precision, tensorrt=tensorrt
    )


def _examples(spec: EncoderSpec, sample: Sequence[Image.Image]) -> Feeds:
    """The network's input for a few of the user's pictures."""
    if not sample or spec.preprocess is None:
        raise EncoderError(
            f"{OPENVINO_INT8} learns from pictures of yours, and there are none: give a sample, or "
            "take openvino-bf16 or int8"
        )
    return spec.preprocess.inputs(sample)


def _encoder(
    spec: EncoderSpec,
    weights_hash: str,
    runtime: str,
    open_graph: Callable[[str], Graph],
    tokenizer: Tokenizer | None,
    batch_size: int = BATCH_SIZE,
) -> NetworkEncoder:
    if tokenizer is None:
        return NetworkEncoder(spec, weights_hash, runtime, open_graph, batch_size=batch_size)
    return NetworkTextEncoder(
        spec, weights_hash, runtime, open_graph, tokenizer, batch_size=batch_size
    )
