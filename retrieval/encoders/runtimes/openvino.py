"""ONNX graphs in OpenVINO on the CPU, in fp32, bfloat16 or 8-bit integers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders.runtimes import cpu
from retrieval.encoders.runtimes.plan import Precision
from retrieval.errors import EncoderError, EncoderUnavailable

_NO_MEMORY = ("bad_alloc", "memory")


class OpenVinoGraph:
    """One loaded graph; every calling thread has a request of its own, each uses all cores."""

    def __init__(self, path: Path, precision: Precision) -> None:
        """Load a graph.

        Args:
            path: an ``.onnx`` file, or OpenVINO's ``.xml`` with its ``.bin`` beside it.
            precision: ``fp32``; ``bf16``; or ``int8`` for a graph that is quantised already, the
                rest of which then runs in bfloat16 where the processor has it.

        Raises:
            EncoderUnavailable: if the package is missing or the graph does not load.
        """
        half = precision == "bf16" or (precision == "int8" and cpu.has_bf16())
        options = {
            # Without it, OpenVINO takes bfloat16 by itself where the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": settings.cores(),
            "ENABLE_CPU_PINNING": False,
        }
        openvino = package("openvino")
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", options)
        except Exception as error:  # openvino raises RuntimeError and its own, undocumented ones
            why = " ".join(str(error).split())[-300:]
            raise EncoderUnavailable(f"OpenVINO cannot load {path}: {why}") from error
        self._local = threading.local()
        self.runtime = f"openvino-cpu-{precision}"

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request = self._local.request
        names = {name for node in self._compiled.inputs for name in node.names}
        try:
            wanted = {name: array for name, array in feeds.items() if name in names}
            request.infer(wanted, share_inputs=True)
            # The request writes into the same memory the next time.
            return [np.array(request.get_tensor(name).data, np.float32) for name in outputs]
        except Exception as error:
            if any(word in str(error) for word in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise EncoderError(f"OpenVINO failed: {error}") from error


def package(name: str) -> Any:
    """Import ``openvino`` or ``nncf`` without the telemetry that both start when imported.

    Both take its package for not installed. Nothing can be done where someone else imported them
    before.

    Raises:
        EncoderUnavailable: if it is not installed.
    """
    import importlib

    with _importing:
        before = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise EncoderUnavailable(
                f"{name} is not usable ({error}): pip install {name}"
            ) from error
        finally:
            if before is not None:
                sys.modules["openvino_telemetry"] = before


_importing = threading.Lock()
