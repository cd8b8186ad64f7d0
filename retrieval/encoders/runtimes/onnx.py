"""A thin runner over ONNX Runtime: one session, many threads, this project's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.errors import EncoderError, EncoderUnavailable

if TYPE_CHECKING:
    import onnxruntime

RUNTIME = "onnxruntime-cpu-fp32"
"""What runs where nothing else is asked for."""

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory", "BFCArena")


class OnnxGraph:
    """One loaded ONNX graph, on the CPU if nothing else is asked for.

    A session may run from several threads at once, and each call uses one core by default: whoever
    has many pictures calls from many threads, which is faster for small networks than splitting
    every operator over the cores.

    Attributes:
        inputs: names of the graph's inputs, in its order.
        outputs: names of the graph's outputs, in its order.
        runtime: package, device and precision, as ``onnxruntime-cpu-int8``.
    """

    def __init__(
        self,
        source: Path | bytes,
        *,
        threads: int = 1,
        device: str = "cpu",
        precision: str = "fp32",
        tensorrt: bool = False,
    ) -> None:
        """Load a graph.

        Args:
            source: path of an ``.onnx`` file, or its bytes.
            threads: cores that one call may use; 0 for all.
            device: ``cpu``, ``cuda`` or ``cuda:1``.
            precision: for the CPU and CUDA, what the graph is in already; TensorRT makes ``fp16``
                or ``bf16`` of a graph in fp32.
            tensorrt: whether TensorRT runs it; its engine is kept in the cache.

        Raises:
            EncoderUnavailable: if onnxruntime is not installed, the graph does not load, or the
                device cannot be used.
        """
        providers = [_tensorrt(device, precision)] if tensorrt else []
        kind = device.split(":")[0]
        if kind != "cpu":
            # fp32 means fp32: matrix products would else round their inputs to 10 bits (TF32).
            cuda = {"device_id": _number(device), "use_tf32": "0"}
            providers.append(("CUDAExecutionProvider", cuda))
        self._session = _session(source, threads, providers)
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())
        self.runtime = f"{'tensorrt' if tensorrt else 'onnxruntime'}-{kind}-{precision}"

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        wanted = {name: feeds[name] for name in self.inputs}
        try:
            return list(self._session.run(list(outputs), wanted))
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise EncoderError(f"ONNX Runtime failed: {error}") from error


def _session(
    source: Path | bytes, threads: int, providers: Sequence[tuple[str, Mapping[str, Any]]]
) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderUnavailable(
            "onnxruntime is not installed; fix: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    # A number, never 0: on its own, onnxruntime binds its threads to cores, and those of several
    # processes to the same ones.
    options.intra_op_num_threads = threads or settings.cores()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors arrive as exceptions
    # Waiting threads would burn the cores that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = source if isinstance(source, bytes) else str(source)
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        name = "bytes in memory" if isinstance(source, bytes) else str(source)
        raise EncoderUnavailable(f"cannot load the ONNX graph from {name}: {error}") from error
    # A provider that does not start leaves its work to the next one and only logs it.
    if providers and providers[0][0] not in session.get_providers():
        raise EncoderUnavailable(
            f"{providers[0][0]} of onnxruntime does not start here: see which CUDA and cuDNN (or "
            "TensorRT) this onnxruntime-gpu needs, or take precision fp16 or bf16, which torch runs"
        )
    return session


def _tensorrt(device: str, precision: str) -> tuple[str, dict[str, Any]]:
    folder = settings.load().cache_dir / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "device_id": _number(device),
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }
    if precision != "fp32":
        options[f"trt_{precision}_enable"] = True
    return "TensorrtExecutionProvider", options


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)
