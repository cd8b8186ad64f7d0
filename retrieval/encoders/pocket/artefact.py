"""The committed heads and text tower: safetensors with rows of 8-bit integers.

A matrix ``name`` is stored as ``name.q``, int8 ``[rows, columns]``, and ``name.s``, float32
``[rows]``, and stands for ``q * s`` row by row; everything else is stored as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import EncoderUnavailable

FOLDER = Path(__file__).with_name("data")
TENSORS = FOLDER / "pocket.safetensors"
TOKENIZER = FOLDER / "tokenizer.json"

Tensors = dict[str, NDArray[Any]]


def quantise(name: str, matrix: NDArray[np.floating]) -> Tensors:
    """Round every row of ``matrix`` to 255 steps between its largest magnitude and its negative."""
    peak = np.maximum(np.abs(matrix).max(axis=1), 1e-12)
    scale = (peak / 127.0).astype(np.float32)
    rounded = np.rint(matrix / scale[:, None]).astype(np.int8)
    return {f"{name}.q": rounded, f"{name}.s": scale}


def dequantise(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Undo :func:`quantise` for all matrices; float16 becomes float32."""
    out: Tensors = {}
    for name, value in tensors.items():
        if name.endswith(".q"):
            scale = tensors[name[:-1] + "s"]
            out[name[:-2]] = value.astype(np.float32) * scale[:, None]
        elif not name.endswith(".s"):
            out[name] = value.astype(np.float32)
    return out


def read(prefix: str, path: Path = TENSORS) -> Tensors:
    """All stored tensors under ``prefix``, which is cut off their names.

    Raises:
        EncoderUnavailable: if the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = sorted(name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise EncoderUnavailable(
            f"the pocket artefact {path} is missing or damaged ({error}); "
            "fix: install this package again"
        ) from error


def digest(*parts: Mapping[str, NDArray[Any]] | bytes) -> str:
    """Hex digest over stored tensors and bytes."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, bytes):
            total.update(part)
            continue
        for name in sorted(part):
            array = np.ascontiguousarray(part[name])
            total.update(f"{name}{array.dtype.str}{array.shape}".encode())
            total.update(array.tobytes())
    return total.hexdigest()
