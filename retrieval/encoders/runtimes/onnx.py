"""A thin runner over ONNX Runtime: one session, many threads, this project's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderError, EncoderUnavailable

if TYPE_CHECKING:
    import onnxruntime

RUNTIME = "onnxruntime-cpu"


class OnnxGraph:
    """One loaded ONNX graph on the CPU.

    A session may run from several threads at once, and each call uses one core by default: whoever
    has many pictures calls from many threads, which is faster for small networks than splitting
    every operator over the cores.

    Attributes:
        inputs: names of the graph's inputs, in its order.
        outputs: names of the graph's outputs, in its order.
    """

    def __init__(self, source: Path | bytes, *, threads: int = 1) -> None:
        """Load a graph.

        Args:
            source: path of an ``.onnx`` file, or its bytes.
            threads: cores that one call may use; 0 for all.

        Raises:
            EncoderUnavailable: if onnxruntime is not installed or the graph does not load.
        """
        self._session = _session(source, threads)
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        wanted = {name: feeds[name] for name in self.inputs}
        try:
            return list(self._session.run(list(outputs), wanted))
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise EncoderError(f"ONNX Runtime failed: {error}") from error


def _session(source: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderUnavailable(
            "onnxruntime is not installed; fix: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only; they also arrive as exceptions
    model = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        name = "bytes in memory" if isinstance(source, bytes) else str(source)
        raise EncoderUnavailable(f"cannot load the ONNX graph from {name}: {error}") from error
