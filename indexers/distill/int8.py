"""The image side in 8-bit integers, where that pays."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.distill.agreement import Figures, mean_cosine
from retrieval.encoders.base import unit_rows
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.types import Embeddings

_MOST_COST = 0.01
_ROUNDS, _TIMED = 15, 8

Pixels = NDArray[np.float32]


def quantise(whole: Path, small: Path, pixels: Pixels) -> None:
    """Write a convolutional graph with 8-bit weights (a scale for each channel) and activations.

    The first convolution and what follows the last one stay in fp32: they make a third of the
    error and cost no time.

    Args:
        whole: the graph in fp32, with the input ``pixels``.
        small: where to write.
        pixels: what it will see, ``[n, 3, side, side]``: ranges of activations come from them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped here
        def __init__(self) -> None:
            self._rows: Iterator[Pixels] = iter(pixels[:, None])

        def get_next(self) -> dict[str, Pixels] | None:
            row = next(self._rows, None)
            return None if row is None else {"pixels": row}

    with _quiet():
        quantize_static(
            str(whole),
            str(small),
            Reader(),
            nodes_to_exclude=_ends(whole),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def pays(whole: Path, small: Path, pixels: Pixels, teacher: Embeddings) -> tuple[bool, Figures]:
    """Whether the graph in int8 is faster and nearly as near to the teacher, and by how much.

    Args:
        whole: the graph in fp32.
        small: the graph in int8.
        pixels: of pictures not seen in training or quantising, ``[n, 3, side, side]``.
        teacher: the teacher's embeddings of them ``[n, dim]``.

    Returns:
        The verdict; and ``cosine_to_fp32``, and the milliseconds of a forward pass of each, as
        medians over alternating rounds on one thread.
    """
    graphs = {"fp32": OnnxGraph(whole), "int8": OnnxGraph(small)}
    rows = {name: unit_rows(graph.run({"pixels": pixels}, ["embedding"])[0])
            for name, graph in graphs.items()}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(_ROUNDS):
        for name, graph in graphs.items():
            start = time.perf_counter()
            for row in pixels[:_TIMED]:
                graph.run({"pixels": row[None]}, ["embedding"])
            times[name].append((time.perf_counter() - start) * 1e3 / len(pixels[:_TIMED]))
    ms = {name: statistics.median(values) for name, values in times.items()}
    cost = mean_cosine(rows["fp32"], teacher) - mean_cosine(rows["int8"], teacher)
    return ms["int8"] < ms["fp32"] and cost <= _MOST_COST, {
        "cosine_to_fp32": mean_cosine(rows["int8"], rows["fp32"]),
        "fp32_ms": ms["fp32"],
        "int8_ms": ms["int8"],
    }


def _ends(path: Path) -> list[str]:
    """Names of the first convolution, and of everything behind the last one."""
    import onnx

    nodes = list(onnx.load(path).graph.node)
    convolutions = [at for at, node in enumerate(nodes) if node.op_type == "Conv"]
    ends = [nodes[convolutions[0]], *nodes[convolutions[-1] + 1 :]]
    return [node.name for node in ends]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's advice, given through the root logger, off the terminal."""
    root = logging.getLogger()
    disabled, root.disabled = root.disabled, True
    try:
        yield
    finally:
        root.disabled = disabled
