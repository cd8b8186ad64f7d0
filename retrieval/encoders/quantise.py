"""Graphs in 8-bit integers: made once, kept in the cache."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval import settings
from retrieval.encoders.checkpoints.onnx_files import signature, weight_paths
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.made import made
from retrieval.encoders.runtimes import cpu

_VERSION = 1
"""Counts up when the same graph is to be quantised in another way."""

_GIBIBYTE = 1 << 30


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
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quiet():
            quantize_dynamic(
                graph,
                folder / "graph.onnx",
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=reduced,
                weight_type=QuantType.QInt8,
                use_external_data_format=_size(graph) > _GIBIBYTE,
                extra_options={"MatMulConstBOnly": True},
            )
        return {"quantised": "onnxruntime dynamic"}

    folder = settings.load().cache_dir / "quantised"
    name = f"{digest(graph)}-dynamic{_VERSION}{'-reduced' if reduced else ''}"
    made(folder / name, make)
    return folder / name / "graph.onnx"


def digest(graph: Path) -> str:
    """Digest of a graph with its weights, 32 hex digits."""
    return weights_hash(weight_paths(graph, signature(graph)), settings.load().cache_dir)


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
