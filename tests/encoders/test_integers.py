"""Matrix products in 8-bit integers: what is rounded, and by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from retrieval.encoders.integers import in_integers
from retrieval.encoders.quantise import quantised
from retrieval.encoders.runtimes import cpu
from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderError

WIDTH, COLUMNS = 64, 48
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((WIDTH, COLUMNS)).astype(np.float32)
BIAS = RNG.standard_normal(COLUMNS).astype(np.float32)


def products(path: Path, opset: int = 17, **gemm: float) -> Path:
    """``y = x @ w`` for tokens, ``z = rows @ w + b`` as Gemm, with the same weight."""
    tokens, rows = ["n", "tokens", WIDTH], ["m", WIDTH]
    ends = [("x", tokens), ("rows", rows), ("y", [*tokens[:2], COLUMNS]), ("z", ["m", COLUMNS])]
    x, r, y, z = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends
    )
    weight = WEIGHT.T if gemm.get("transB") else WEIGHT
    stored = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")]
    stored.append(numpy_helper.from_array(np.ascontiguousarray(weight), "v"))
    nodes = [
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("MatMul", ["x", "again"], ["y"]),
        helper.make_node("Gemm", ["rows", "v", "b"], ["z"], **gemm),
    ]
    graph = helper.make_graph(nodes, "products", [x, r], [y, z], stored)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def run(path: Path, x: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    return OnnxGraph(path).run({"x": x, "rows": rows}, ["y", "z"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / "cache"))


def rounded(x: np.ndarray, axis: int) -> np.ndarray:
    """To 255 steps between the largest magnitude along an axis and its negative."""
    step = np.abs(x).max(axis=axis, keepdims=True) / 127
    return np.rint(x / step) * step


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("gemm", [{}, {"transB": 1}], ids=["plain", "transposed"])
def test_rows_and_columns_are_rounded_and_nothing_else(opset, gemm, tmp_path):
    path = products(tmp_path / "p.onnx", opset, **gemm)
    in_integers(path, tmp_path / "q.onnx")
    x = RNG.standard_normal((3, 5, WIDTH)).astype(np.float32)
    rows = RNG.standard_normal((7, WIDTH)).astype(np.float32)
    # A token with extreme values, as vision transformers have, costs the others nothing.
    x[1, 2] *= 1000
    rows[4] = 0
    y, z = run(tmp_path / "q.onnx", x, rows)
    weight = rounded(WEIGHT, axis=0)
    expected = rounded(x, axis=-1) @ weight
    assert (np.abs(y - expected) <= 1e-5 * np.abs(expected).max(axis=-1, keepdims=True)).all()
    rows[4] = 1e-20
    np.testing.assert_allclose(z, rounded(rows, axis=-1) @ weight + BIAS, rtol=1e-4, atol=1e-4)
    exact = x @ WEIGHT
    error = np.linalg.norm(y - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    assert 1e-4 < error.max() < 0.02
    left = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert not left & {"MatMul", "Gemm"}


def test_answers_do_not_depend_on_the_batch(tmp_path):
    in_integers(products(tmp_path / "p.onnx"), tmp_path / "q.onnx")
    x = RNG.standard_normal((6, 5, WIDTH)).astype(np.float32) * np.logspace(-3, 3, 6)[:, None, None]
    x = x.astype(np.float32)
    rows = RNG.standard_normal((1, WIDTH)).astype(np.float32)
    together = run(tmp_path / "q.onnx", x, rows)[0]
    for at in range(6):
        np.testing.assert_array_equal(run(tmp_path / "q.onnx", x[[at]], rows)[0][0], together[at])


@pytest.mark.parametrize("gemm", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_products_of_another_form_stay(gemm, tmp_path):
    in_integers(products(tmp_path / "p.onnx", **gemm), tmp_path / "q.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert kinds.count("Gemm") == 1
    assert kinds.count("MatMulIntegerToFloat") == 1
    rows = RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    x = RNG.standard_normal((1, 1, WIDTH)).astype(np.float32)
    expected, found = (run(tmp_path / f"{name}.onnx", x, rows)[1] for name in "pq")
    np.testing.assert_array_equal(found, expected)


def test_a_graph_that_is_too_old_is_named(tmp_path):
    path = products(tmp_path / "p.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 11
    onnx.save(model, path)
    with pytest.raises(EncoderError, match="opset 11"):
        in_integers(path, tmp_path / "q.onnx")
    path.write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="cannot be quantised"):
        in_integers(path, tmp_path / "q.onnx")


def test_without_units_for_it_weights_have_7_bits(tmp_path, monkeypatch):
    path = products(tmp_path / "p.onnx")
    peaks = []
    for has in (True, False):
        monkeypatch.setattr(cpu, "has_int8", lambda has=has: has)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        stored = onnx.load(quantised(path)).graph.initializer
        small = [numpy_helper.to_array(each) for each in stored]
        peaks += [max(int(np.abs(a.astype(int)).max()) for a in small if a.dtype == np.int8)]
    assert peaks == [127, 63]


def test_the_small_graph_is_small_and_made_once(tmp_path):
    path = products(tmp_path / "p.onnx")
    small = quantised(path)
    before = small.stat().st_mtime_ns
    assert quantised(path) == small
    assert small.stat().st_mtime_ns == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "p.onnx"]
    big = sum(len(each.raw_data) for each in onnx.load(path).graph.initializer)
    assert sum(len(each.raw_data) for each in onnx.load(small).graph.initializer) < big / 3
