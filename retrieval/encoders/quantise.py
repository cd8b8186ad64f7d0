"""Graphs in 8-bit integers: made once, kept in the cache."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders.checkpoints.onnx_files import signature, weight_paths
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.made import made
from retrieval.encoders.runtimes import cpu
from retrieval.errors import EncoderError

_VERSION = 1
"""Counts up when the same graph is to be quantised in another way."""

_LARGE_BYTES = 4_000_000_000  # a quarter of which a protobuf surely holds


def quantised(graph: Path) -> Path:
    """The same network for ONNX Runtime with matrix products in 8-bit integers.

    Weights have a scale for each column. Activations get theirs at every run from their largest
    and smallest value, so no pictures are needed to calibrate; over the whole batch, so an answer
    depends a little on its batch-mates. Convolutions stay in fp32.

    Args:
        graph: in fp32.

    Returns:
        Path of the quantised graph.

    Raises:
        EncoderError: if it cannot be written.
    """
    # Without units for it, sums of products of full 8 bits overflow on x86: take 7.
    reduced = not cpu.has_int8() and platform.machine().lower() in ("x86_64", "amd64")

    def make(folder: Path) -> Mapping[str, Any]:
        try:
            _quantise(graph, folder / "graph.onnx", reduced)
        except OSError:
            raise
        except Exception as error:  # neither package says what it may raise
            raise EncoderError(f"{graph} cannot be quantised: {error}") from error
        return {"quantised": "onnxruntime dynamic"}

    folder = settings.load().cache_dir / "quantised"
    name = f"{digest(graph)}-dynamic{_VERSION}{'-reduced' if reduced else ''}"
    made(folder / name, make)
    return folder / name / "graph.onnx"


def calibrated(graph: Path, feeds: Mapping[str, NDArray[Any]]) -> Path:
    """The same network for OpenVINO in 8-bit integers, weights and activations.

    Ranges of activations are learnt from examples (NNCF's post-training quantisation for
    transformers), so an answer does not depend on its batch-mates. Takes seconds to minutes.

    Args:
        graph: in fp32.
        feeds: what the graph takes for some pictures of the user's own, ``[n, …]`` each; tens are
            enough, and other ones give another network.

    Returns:
        Path of OpenVINO's ``.xml``.

    Raises:
        EncoderError: if it cannot be written, or NNCF fails.
    """
    seen = hashlib.blake2b(digest_size=8)
    for name in sorted(feeds):
        seen.update(np.ascontiguousarray(feeds[name]).tobytes())

    def make(folder: Path) -> Mapping[str, Any]:
        np.savez(folder / "feeds.npz", allow_pickle=False, **feeds)
        arguments = [str(path) for path in (graph, folder / "feeds.npz", folder / "graph.xml")]
        done = subprocess.run(
            [sys.executable, "-m", "retrieval.encoders.calibrate", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EncoderError(f"NNCF cannot quantise {graph}: {last}")
        (folder / "feeds.npz").unlink()
        return {"quantised": "nncf"}

    folder = settings.load().cache_dir / "quantised"
    name = f"{digest(graph)}-nncf{_VERSION}-{seen.hexdigest()}"
    made(folder / name, make)
    return folder / name / "graph.xml"


def digest(graph: Path) -> str:
    """Digest of a graph with its weights, 32 hex digits."""
    return weights_hash(weight_paths(graph, signature(graph)), settings.load().cache_dir)


def _quantise(graph: Path, to: Path, reduced: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    network = onnx.load(graph)
    _part_weights(network.graph)
    with _quiet():
        quantize_dynamic(
            network,  # given a path, it would write beside it
            to,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=reduced,
            weight_type=QuantType.QInt8,
            use_external_data_format=_size(graph) > _LARGE_BYTES,
        )


def _part_weights(graph: Any) -> None:
    """Give every Gemm a weight of its own, and everything else its weight under its first name.

    The package transposes the weights of each Gemm in place, those that two share twice. And it
    takes what comes through an Identity, as weights do that two layers share, for no constant.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    first = {name: name for name in weights}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in first:
            first[node.output[0]] = first[node.input[0]]
    uses: Counter[str] = Counter()
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = first.get(name, name)
            uses[node.input[at]] += 1
    for number, node in enumerate(graph.node):
        if node.op_type == "Gemm" and node.input[1] in weights and uses[node.input[1]] > 1:
            copy = graph.initializer.add()
            copy.CopyFrom(weights[node.input[1]])
            copy.name = node.input[1] = f"{copy.name}_{number}"


def _size(graph: Path) -> int:
    return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's advice, given through the root logger, off the terminal."""
    root = logging.getLogger()
    disabled, root.disabled = root.disabled, True
    try:
        yield
    finally:
        root.disabled = disabled
