"""A linear map from one space's vectors to a smaller or whiter space, as a collection stores it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.types import Embeddings

Kind: TypeAlias = Literal["truncate", "pca", "whiten"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """How vectors of a derived space come from those of its base.

    Attributes:
        kind: ``truncate`` keeps the first dimensions, as of a Matryoshka embedding (Kusupati et
            al. 2022); ``pca`` centres and projects on the first principal axes; ``whiten`` divides
            each of them by its standard deviation too.
        dim: length of what it makes.
        mean: float32 ``[base]``, subtracted first; empty for ``truncate``.
        matrix: float32 ``[base, dim]``, multiplied from the right; empty for ``truncate``.
    """

    kind: Kind
    dim: int
    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    @classmethod
    def truncate(cls, dim: int) -> Transform:
        """The one that keeps the first ``dim`` dimensions."""
        return cls("truncate", dim, np.zeros(0, np.float32), np.zeros((0, dim), np.float32))

    def __call__(self, vectors: NDArray[Any]) -> Embeddings:
        """Unit rows ``[n, dim]`` from rows ``[n, base]``.

        A row of which nothing is left has no direction; it is put on the first axis, so that every
        image of the base has a place.
        """
        rows = np.asarray(vectors, dtype=np.float32)
        truncated = self.kind == "truncate"
        out = rows[:, : self.dim].copy() if truncated else (rows - self.mean) @ self.matrix
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        out[norms[:, 0] == 0, 0] = 1
        norms[norms == 0] = 1
        return np.asarray(out / norms, dtype=np.float32)

    def digest(self, weights_hash: str) -> str:
        """BLAKE2b-128, 32 hex digits, of the base's weights and of everything in here."""
        facts = f"{weights_hash}\0{self.kind}\0{self.dim}\0".encode()
        found = hashlib.blake2b(facts, digest_size=16)
        found.update(_bytes(self.mean))
        found.update(_bytes(self.matrix))
        return found.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON object; arrays are base64 of little-endian float32."""
        arrays = {"mean": self.mean, "matrix": self.matrix}
        texts = {name: base64.b64encode(_bytes(each)).decode() for name, each in arrays.items()}
        return {"kind": self.kind, "dim": self.dim, **texts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Transform:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.
        """
        mean, flat = (
            np.frombuffer(base64.b64decode(value[name], validate=True), "<f4").astype(np.float32)
            for name in ("mean", "matrix")
        )
        dim = int(value["dim"])
        return cls(value["kind"], dim, mean, flat.reshape(len(mean), dim))


def _bytes(array: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()
