"""Matrix products of an ONNX graph in 8-bit integers, for ONNX Runtime on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderError

_OLDEST_OPSET = 13
_LARGE_BYTES = 1_900_000_000  # a protobuf holds two gigabytes
_ZERO = 128  # of 8-bit activations, which are unsigned because processors multiply those by signed


def in_integers(graph: Path, to: Path, *, bits: int = 8) -> None:
    """Write ``graph`` with its matrix products in 8-bit integers.

    A weight has a scale for each of its columns. An activation gets one for each of its rows, that
    is for each token, at every run: so no pictures are needed to calibrate, a token with extreme
    values does not cost the others their precision, and an answer does not depend on its
    batch-mates. (onnxruntime's own dynamic quantisation has one scale for the whole batch; it is as
    fast.) Convolutions, and products of two activations, stay in fp32.

    Args:
        graph: in fp32.
        to: the new file.
        bits: of weights: 7 where a processor adds products of 8 bits in 16.

    Raises:
        EncoderError: if it cannot be read, or is too old.
        OSError: if it cannot be written.
    """
    import onnx

    try:
        network = onnx.load(graph)
    except Exception as error:  # protobuf's and onnx's own errors among them
        raise EncoderError(f"{graph} cannot be quantised: {error}") from error
    opset = next(each.version for each in network.opset_import if each.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        raise EncoderError(
            f"{graph} cannot be quantised: it is of opset {opset}; export it again with "
            f"{_OLDEST_OPSET} or later"
        )
    _Rewriting(network.graph, opset, 2 ** (bits - 1) - 1).run()
    network.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    large = network.ByteSize() > _LARGE_BYTES
    onnx.save_model(network, to, save_as_external_data=large, location=f"{to.name}.data")


class _Rewriting:
    """One graph, changed in place."""

    def __init__(self, graph: Any, opset: int, peak: int) -> None:
        self.graph = graph
        self.axes_are_input = opset >= 18
        self.peak = peak
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}
        self.rows: dict[str, tuple[str, str]] = {}  # activation: its integers and their scales

    def run(self) -> None:
        """Replace every product of an activation and a weight."""
        self._see_through_identities()
        for node in self.graph.node:
            weight = self._weight(node)
            if weight is None:
                self.nodes.append(node)
            else:
                self._replace(node, weight)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self._drop_unused()
        self.graph.initializer.extend(self.stored.values())

    def _see_through_identities(self) -> None:
        """Give weights that several layers share to all of them under one name."""
        first = {name: name for name in self.weights}
        outputs = {each.name for each in self.graph.output}
        kept = []
        for node in self.graph.node:
            for at, name in enumerate(node.input):
                node.input[at] = first.get(name, name)
            if node.op_type == "Identity" and node.input[0] in first:
                first[node.output[0]] = node.input[0]
                if node.output[0] not in outputs:
                    continue
            kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(kept)

    def _weight(self, node: Any) -> NDArray[np.float32] | None:
        """The constant ``[width, columns]`` that a node multiplies its rows by, if it does that."""
        import onnx

        tensor = self.weights.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:
            return None
        if node.op_type == "MatMul":
            found: NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
            return found
        if node.op_type != "Gemm":
            return None
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA", 0):
            return None
        found = onnx.numpy_helper.to_array(tensor)
        return found.T if given.get("transB", 0) else found

    def _replace(self, node: Any, weight: NDArray[np.float32]) -> None:
        integers, scale = self._quantised_rows(node.input[0], weight.shape[0])
        columns, steps = self._quantised_columns(f"{node.op_type}/{node.input[1]}", weight)
        one, zero = self._constant("one", np.float32(1)), self._constant("zero", np.uint8(_ZERO))
        product, bias = node.output[0], node.input[2] if len(node.input) > 2 else None
        rows = self._add(
            "MatMulIntegerToFloat", integers, columns, one, steps, zero, domain="com.microsoft"
        )
        if bias is None:
            self._add("Mul", rows, scale, out=product)
        else:
            self._add("Add", self._add("Mul", rows, scale), bias, out=product)

    def _quantised_rows(self, name: str, width: int) -> tuple[str, str]:
        """Nodes that round an activation ``[…, width]``, and what scales it back ``[…, 1]``."""
        if name not in self.rows:
            ends = (
                self._extreme("ReduceMax", name),
                self._add("Neg", self._extreme("ReduceMin", name)),
            )
            least = self._constant("least", np.float32(1e-30))
            step = self._constant("step", np.float32(1 / 127))
            scale = self._add("Mul", self._add("Max", *ends, least), step)
            each = self._add("Reshape", scale, self._constant("flat", np.array([-1])))
            zeros = self._add(
                "Expand", self._constant("zero", np.uint8(_ZERO)), self._add("Shape", each)
            )
            flat = self._add("Reshape", name, self._constant(f"by{width}", np.array([-1, width])))
            rounded = self._add("QuantizeLinear", flat, each, zeros, axis=0)
            self.rows[name] = self._add("Reshape", rounded, self._add("Shape", name)), scale
        return self.rows[name]

    def _extreme(self, kind: str, name: str) -> str:
        if self.axes_are_input:
            return self._add(kind, name, self._constant("last", np.array([-1])), keepdims=1)
        return self._add(kind, name, axes=[-1], keepdims=1)

    def _quantised_columns(self, name: str, weight: NDArray[np.float32]) -> tuple[str, str]:
        """A weight in integers, and the scales of its columns."""
        steps = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-30)) / np.float32(self.peak)
        if f"int8/{name}" not in self.stored:
            self._constant(name, np.rint(weight / steps).astype(np.int8))
        return f"int8/{name}", self._constant(f"{name}/steps", steps)

    def _constant(self, name: str, value: Any) -> str:
        import onnx

        name = f"int8/{name}"
        if name not in self.stored:
            self.stored[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def _add(self, kind: str, *inputs: str, out: str = "", domain: str = "", **facts: Any) -> str:
        """One more node; gives the name of its output."""
        import onnx

        out = out or f"int8/{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [out], domain=domain, **facts))
        return out

    def _drop_unused(self) -> None:
        """Forget weights that nobody needs in fp32 any more."""
        if any(each.HasField("g") for node in self.nodes for each in node.attribute):
            return  # what inner graphs use is not looked at
        used = {name for node in self.nodes for name in node.input}
        used |= {node.name for node in self.graph.output}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
