"""Networks in torch: CUDA, MPS or CPU, in fp32 or half precision, compiled if asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.runtimes.plan import Precision
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from retrieval.encoders.towers import Tower


class TorchGraph:
    """A tower on a device.

    On the CPU one forward pass at a time runs on all cores. On CUDA every calling thread has a
    stream of its own and pinned buffers, so that copies of one thread overlap the other's pass.
    """

    def __init__(
        self, tower: Tower, device: str, precision: Precision = "fp32", *, compiled: bool = False
    ) -> None:
        """Move ``tower`` to ``device`` (``cuda``, ``cuda:1``, ``mps``, ``cpu``) and ``precision``.

        The tower itself is changed: its floating weights then have that type.
        """
        import torch

        self._device = torch.device(device)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            precision
        ]
        self._inputs, self._outputs = tower.inputs, tower.outputs
        module = tower.to(device=self._device, dtype=self._dtype).eval().requires_grad_(False)
        self._module: Any = torch.compile(module, dynamic=True) if compiled else module
        self._lock = threading.Lock() if self._device.type != "cuda" else nullcontext()
        self._local = threading.local()
        self.runtime = "-".join(
            ["torch", *(["compile"] if compiled else []), self._device.type, precision]
        )

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        import torch

        # fp32 means fp32: on a GPU convolutions would else round their inputs to 10 bits (TF32).
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        try:
            with self._lock, torch.inference_mode(), exact, self._stream():
                found = self._module(*(self._sent(feeds[name]) for name in self._inputs))
                found = found if isinstance(found, tuple) else (found,)
                named = dict(zip(self._outputs, found, strict=True))
                return [named[name].float().cpu().numpy() for name in outputs]
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # the CPU's allocator has no error class
                raise MemoryError(str(error)) from error
            raise EncoderError(f"torch failed: {error}") from error

    def _sent(self, array: NDArray[Any]) -> torch.Tensor:
        """The array on the device, in the tower's precision where it holds fractions."""
        import torch

        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        tensor = tensor.to(self._device, non_blocking=True)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _stream(self) -> Any:
        """The calling thread's own CUDA stream; nothing elsewhere."""
        import torch

        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._local.stream)
