"""The one thing that every runtime is to the rest of the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Graph(Protocol):
    """A network that is ready to run; safe to call from several threads."""

    @property
    def runtime(self) -> str:
        """Package, device and precision, as ``torch-cpu-fp32``."""
        ...

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run it.

        Args:
            feeds: an array for every input by name; the first axis is the batch.
            outputs: names of the outputs wanted.

        Returns:
            One float32 array for each name in ``outputs``, in that order.

        Raises:
            MemoryError: if the batch does not fit; a smaller one may.
            EncoderError: if the computation fails.
        """
        ...
