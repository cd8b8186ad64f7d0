from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from retrieval.encoders.runtimes.onnx import RUNTIME, OnnxGraph
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


def test_says_what_runs() -> None:
    assert OnnxGraph(doubling()).runtime == RUNTIME == "onnxruntime-cpu-fp32"
    assert OnnxGraph(doubling(), precision="int8").runtime == "onnxruntime-cpu-int8"
    assert OnnxGraph(doubling(), device="cpu:0").runtime == RUNTIME


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    graph = OnnxGraph(doubling(), threads=threads)
    x = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    np.testing.assert_array_equal(graph.run({"x": x}, ["twice"])[0], 2 * x)


def test_more_than_memory_holds_asks_for_less() -> None:
    """The output would have 2⁴⁷ numbers, more than any machine has addresses for."""
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [3], [2**24, 2**23, 1])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "huge", [x], [y], [shape])
    opsets = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    with pytest.raises(MemoryError):
        OnnxGraph(data).run({"x": np.ones((1, 3), np.float32)}, ["y"])


def test_a_provider_that_is_not_there_is_unavailable() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(EncoderUnavailable, match="does not start"),
    ):
        OnnxGraph(doubling(), device="cuda")
