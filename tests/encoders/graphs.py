"""Small ONNX graphs, as a user may bring one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT = onnx.TensorProto.FLOAT
WIDTH = 6


def image_graph(
    path: Path,
    *,
    given: str = "pixels",
    gives: str = "embedding",
    size: int | str = 32,
    batch: int | str = "n",
    last: str = "rows",
    prefix: int = 0,
) -> Path:
    """Write a network: each patch of 8×8 pixels times a random matrix.

    Args:
        path: the file.
        given: name of its input.
        gives: name of its output.
        size: side of its input; a name for any.
        batch: pictures at once; a name for any number.
        last: what it gives: ``rows`` ``[n, dim]``, ``tokens`` ``[n, prefix + places, width]`` or
            ``map`` ``[n, width, rows, columns]``.
        prefix: tokens before the places: the mean, repeated.
    """
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((WIDTH, 3, 8, 8)).astype(np.float32)
    stored = [numpy_helper.from_array(weight, "weight")]
    nodes = [helper.make_node("Conv", [given, "weight"], ["map"], strides=[8, 8])]
    rows = size // 8 if isinstance(size, int) else "rows"
    shape: list[int | str] = [batch, WIDTH, rows, rows]
    if last == "rows":
        nodes.append(helper.make_node("GlobalAveragePool", ["map"], ["mean"]))
        nodes.append(helper.make_node("Flatten", ["mean"], ["out"]))
        shape = [batch, WIDTH]
    elif last == "tokens":
        stored.append(numpy_helper.from_array(np.array([0, WIDTH, -1]), "flat"))
        nodes.append(helper.make_node("Reshape", ["map", "flat"], ["wide"]))
        nodes.append(helper.make_node("Transpose", ["wide"], ["places"], perm=[0, 2, 1]))
        nodes.append(helper.make_node("ReduceMean", ["places"], ["mean"], axes=[1]))
        parts = ["mean"] * prefix + ["places"]
        nodes.append(helper.make_node("Concat", parts, ["out"], axis=1))
        count = prefix + rows**2 if isinstance(rows, int) else "tokens"
        shape = [batch, count, WIDTH]
    else:
        nodes.append(helper.make_node("Identity", ["map"], ["out"]))
    nodes.append(helper.make_node("Identity", ["out"], [gives]))
    pixels = helper.make_tensor_value_info(given, FLOAT, [batch, 3, size, size])
    output = helper.make_tensor_value_info(gives, FLOAT, shape)
    return save(path, helper.make_graph(nodes, "image", [pixels], [output], stored))


def text_graph(path: Path, *, words: int, given: str = "ids") -> Path:
    """Write a network: the mean of its tokens' random rows."""
    rng = np.random.default_rng(1)
    table = rng.standard_normal((words, WIDTH)).astype(np.float32)
    stored = [numpy_helper.from_array(table, "table")]
    nodes = [
        helper.make_node("Gather", ["table", given], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens"], ["embedding"], axes=[1], keepdims=0),
    ]
    ids = helper.make_tensor_value_info(given, onnx.TensorProto.INT64, ["n", "length"])
    output = helper.make_tensor_value_info("embedding", FLOAT, ["n", WIDTH])
    return save(path, helper.make_graph(nodes, "text", [ids], [output], stored))


def save(path: Path, graph: onnx.GraphProto) -> Path:
    """Write a graph in the oldest form that is used here."""
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
