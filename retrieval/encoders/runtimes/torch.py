"""Networks in torch: CUDA, MPS or CPU, in fp32 or half precision, compiled if asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.runtimes.plan import Precision
from retrieval.errors import EncoderError, EncoderUnavailable

if TYPE_CHECKING:
    import torch

    from retrieval.encoders.towers import Tower

# What allocators of the CPU, MPS and CUDA's libraries say; they have no error class of their own.
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


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

        Raises:
            EncoderUnavailable: if there is no such device.
        """
        import torch

        self._device = _device(device)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            precision
        ]
        self._inputs, self._outputs = tower.inputs, tower.outputs
        module = tower.to(device=self._device, dtype=self._dtype).eval().requires_grad_(False)
        if cuda := self._device.type == "cuda":
            # Weights may still be on their way to what other streams are about to read.
            torch.cuda.synchronize(self._device)
        self._module: Any = torch.compile(module, dynamic=True) if compiled else module
        self._compiled = compiled
        # The first call of a compiled network compiles it, which two threads must not do at once.
        self._lock = nullcontext() if cuda and not compiled else threading.Lock()
        self._exact = _without_tf32 if cuda and precision == "fp32" else nullcontext
        self._local = threading.local()
        self.runtime = "-".join(
            ["torch", *(["compile"] if compiled else []), self._device.type, precision]
        )

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """See :class:`~retrieval.encoders.runtimes.graph.Graph`."""
        import torch

        arrays = [feeds[name] for name in self._inputs]
        count = len(arrays[0])
        if self._compiled and count == 1:
            # A network compiled for any batch is compiled once more for a batch of one.
            arrays = [np.repeat(array, 2, axis=0) for array in arrays]
        try:
            with torch.inference_mode(), self._exact(), self._stream():
                with self._lock:
                    found = self._module(*map(self._sent, arrays))
                found = found if isinstance(found, tuple) else (found,)
                named = dict(zip(self._outputs, found, strict=True))
                # Waits for this thread's stream, on which all of the above was queued.
                return [named[name][:count].float().cpu().numpy() for name in outputs]
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise EncoderError(f"torch failed: {error}") from error

    def _sent(self, array: NDArray[Any]) -> torch.Tensor:
        """The array on the device, in the tower's precision where it holds fractions."""
        import torch

        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            # The allocator keeps a pinned buffer from being used again before it is copied.
            tensor = tensor.pin_memory()
        tensor = tensor.to(self._device, non_blocking=self._device.type == "cuda")
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _stream(self) -> Any:
        """The calling thread's own CUDA stream; nothing elsewhere."""
        import torch

        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._local.stream)


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # what it raises differs from build to build
        why = str(error).splitlines()[0]
        raise EncoderUnavailable(
            f"torch cannot use the device {name!r} here ({why}); leave it out, or take cpu"
        ) from error


_switch = threading.Lock()
_exact_runs, _allowed_before = 0, True


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Let fp32 mean fp32: cuDNN's convolutions round their inputs to 10 bits (TF32) by default.

    The switch is the whole process's: it is turned by the first that comes and turned back by the
    last that leaves, else one thread would turn it back under another.
    """
    import torch

    global _exact_runs, _allowed_before
    with _switch:
        if _exact_runs == 0:
            _allowed_before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
        _exact_runs += 1
    try:
        yield
    finally:
        with _switch:
            _exact_runs -= 1
            if _exact_runs == 0:
                torch.backends.cudnn.allow_tf32 = _allowed_before
