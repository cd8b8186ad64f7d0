"""EfficientNet-Lite0 as an ONNX graph, built from its weights and cached.

Architecture: Tan and Le, "EfficientNet", 2019 (MBConv blocks), in the Lite variant: no
squeeze-and-excitation, ReLU6 instead of swish, stem and head not scaled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.files import put
from retrieval.encoders.pocket import weights

VERSION = 2
"""Raised whenever the graph that :func:`build` makes from the same weights changes."""

POOLED = 1280
CLASSES = 1000
WIDTH = POOLED + CLASSES
SIDE = 7
"""Rows and columns of the last feature map."""
MIDDLE, MIDDLE_WIDTH = 28, 40
"""Rows and columns of the third stage's map, and its channels."""

_INPUT_SIZE = 224
_BATCH_NORM_EPSILON = 1e-3
_OPSET = 17
_IR_VERSION = 8
# (repeats, kernel, stride of the first repeat, expansion) of the seven stages
_STAGES = (
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
)
_MAPS = {2: "stage3", 4: "stage5"}

_log = logging.getLogger(__name__)


def graph_bytes(cache_dir: Path) -> bytes:
    """The serialised graph, from the cache or built and cached.

    The cached file is a SHA-256 and the graph it belongs to; one that does not agree with its
    digest is built anew. Many processes may come first at once: each writes a file of its own and
    moves it into place, and all of them write the same graph.

    Args:
        cache_dir: folder of the cache, made if missing. One that cannot be written costs the
            building time on every start and a warning.

    Raises:
        EncoderUnavailable: if the weights are missing or damaged.
    """
    path = cache_dir / "pocket" / f"efficientnet-lite0-{weights.SHA256[:16]}-v{VERSION}.onnx.sha256"
    if (cached := _read(path)) is not None:
        return cached
    model = build(weights.load())
    try:
        put(path, hashlib.sha256(model).digest() + model)
    except OSError as error:
        _log.warning("cannot cache the pocket graph: %s", error)
    return model


def build(state: Mapping[str, NDArray[Any]]) -> bytes:
    """Build the graph from the reference network's state dict, batch-norms folded in.

    Input ``pixels`` is float32 ``[n, 3, 224, 224]``, normalised. Outputs, all float32:
    ``features`` ``[n, 2280]`` (1,280 averages of the last feature map, then the 1,000 class
    logits), and for whoever looks at places that map, ``last`` ``[n, 1280, 7, 7]``, ``stage3``
    ``[n, 40, 28, 28]`` and ``stage5`` ``[n, 112, 14, 14]``.

    Args:
        state: arrays by their name in the state dict.

    Returns:
        A serialised ONNX model.
    """
    net = _Graph(state)
    x = net.conv("pixels", "_conv_stem", "_bn0", stride=2, relu=True)
    block = 0
    for stage, (repeats, _, stride, expansion) in enumerate(_STAGES):
        for repeat in range(repeats):
            x = _block(net, x, f"_blocks.{block}", stride if repeat == 0 else 1, expansion, repeat)
            block += 1
        if stage in _MAPS:
            x = net.op("Identity", [x], output=_MAPS[stage])
    x = net.conv(x, "_conv_head", "_bn1", relu=True)
    # Beside the chain, not in it: as an output of its own the map would be laid out anew before it
    # is averaged, and the averages' last bits would change.
    net.op("Identity", [x], output="last")
    x = net.op("GlobalAveragePool", [x])
    pooled = net.op("Flatten", [x])
    fc = [net.constant(f"_fc.{part}", state[f"_fc.{part}"]) for part in ("weight", "bias")]
    logits = net.op("Gemm", [pooled, *fc], transB=1)
    net.op("Concat", [pooled, logits], output="features", axis=1)
    return net.serialise()


def _block(net: _Graph, x: str, name: str, stride: int, expansion: int, repeat: int) -> str:
    """One inverted residual: expand, depthwise, project; a shortcut where shapes agree."""
    y = x
    if expansion > 1:
        y = net.conv(y, f"{name}._expand_conv", f"{name}._bn0", relu=True)
    y = net.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, relu=True)
    y = net.conv(y, f"{name}._project_conv", f"{name}._bn2")
    return net.op("Add", [x, y]) if repeat else y


@dataclass
class _Graph:
    """Nodes and constants in the making."""

    state: Mapping[str, NDArray[Any]]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def op(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Append one node and return the name of what it computes."""
        from onnx import helper

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a float32 constant and return its name."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(value, dtype=np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, conv: str, norm: str, *, stride: int = 1, relu: bool = False) -> str:
        """A convolution with its batch-norm folded in, padded as TensorFlow's ``SAME``."""
        kernel, bias = _fold(self.state, conv, norm)
        size = kernel.shape[-1]
        # Every input side is a multiple of the stride, so that SAME pads kernel - stride in
        # all, the odd one at the end.
        before, extra = divmod(size - stride, 2) if size > 1 else (0, 0)
        after = before + extra
        x = self.op(
            "Conv",
            [x, self.constant(f"{conv}.weight", kernel), self.constant(f"{conv}.bias", bias)],
            group=kernel.shape[0] if kernel.shape[1] == 1 else 1,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[before, before, after, after],
        )
        if not relu:
            return x
        if not any(constant.name == "six" for constant in self.constants):
            self.constant("zero", np.array(0.0))
            self.constant("six", np.array(6.0))
        return self.op("Clip", [x, "zero", "six"])

    def serialise(self) -> bytes:
        """Check the whole and turn it into bytes."""
        import onnx
        from onnx import helper

        def tensor(name: str, *shape: int) -> Any:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape])

        graph = helper.make_graph(
            self.nodes,
            "efficientnet-lite0",
            [tensor("pixels", 3, _INPUT_SIZE, _INPUT_SIZE)],
            [
                tensor("features", WIDTH),
                tensor("stage3", 40, 28, 28),
                tensor("stage5", 112, 14, 14),
                tensor("last", POOLED, SIDE, SIDE),
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _fold(
    state: Mapping[str, NDArray[Any]], conv: str, norm: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kernel and bias of a convolution followed by its batch-norm, in float64."""
    mean, variance, gain, shift = (
        state[f"{norm}.{part}"].astype(np.float64)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    return state[f"{conv}.weight"] * scale[:, None, None, None], shift - mean * scale


def _read(path: Path) -> bytes | None:
    """The graph behind its digest, or None if it is absent or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, model = data[:32], data[32:]
    return model if hashlib.sha256(model).digest() == digest else None
