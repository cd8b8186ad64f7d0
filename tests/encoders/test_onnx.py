from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderError, EncoderUnavailable


def doubling() -> bytes:
    """A graph with two outputs: the input twice as large, and its negative."""
    x, *outputs = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3])
        for name in ("x", "twice", "negative")
    )
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Neg", ["x"], ["negative"]),
    ]
    graph = helper.make_graph(nodes, "doubling", [x], outputs)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_runs_all_or_chosen_outputs() -> None:
    graph = OnnxGraph(doubling())
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (graph.inputs, graph.outputs) == (("x",), ("twice", "negative"))
    twice, negative = graph.run({"x": x}, graph.outputs)
    np.testing.assert_array_equal(twice, 2 * x)
    np.testing.assert_array_equal(negative, -x)
    [only] = graph.run({"x": x}, ["negative"])
    np.testing.assert_array_equal(only, -x)


def test_loads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "doubling.onnx"
    path.write_bytes(doubling())
    [twice] = OnnxGraph(path).run({"x": np.ones((1, 3), np.float32)}, ["twice"])
    np.testing.assert_array_equal(twice, np.full((1, 3), 2, np.float32))


def test_threads_share_one_session() -> None:
    graph = OnnxGraph(doubling())

    def twice(value: int) -> float:
        return float(graph.run({"x": np.full((1, 3), value, np.float32)}, ["twice"])[0].sum())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(twice, range(100))) == [6.0 * value for value in range(100)]


def test_a_wrong_shape_is_an_encoder_error() -> None:
    with pytest.raises(EncoderError, match="ONNX Runtime"):
        OnnxGraph(doubling()).run({"x": np.ones((1, 4), np.float32)}, ["twice"])


@pytest.mark.parametrize("data", [b"", b"not a graph"])
def test_a_damaged_graph_is_unavailable(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    with pytest.raises(EncoderUnavailable, match=r"broken\.onnx"):
        OnnxGraph(path)


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"absent\.onnx"):
        OnnxGraph(tmp_path / "absent.onnx")
