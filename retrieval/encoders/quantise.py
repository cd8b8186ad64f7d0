"""Graphs in 8-bit integers: made once, kept in the cache."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders.checkpoints.onnx_files import signature, weight_paths
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.integers import in_integers
from retrieval.encoders.made import made
from retrieval.encoders.runtimes import cpu
from retrieval.errors import EncoderError

_VERSION = 2
"""Counts up when the same graph is to be quantised in another way."""


def quantised(graph: Path) -> Path:
    """The same network for ONNX Runtime with its matrix products in 8-bit integers.

    See :func:`~retrieval.encoders.integers.in_integers`.

    Args:
        graph: in fp32.

    Returns:
        Path of the quantised graph.

    Raises:
        EncoderError: if it cannot be read or written.
    """
    # Without units for it, sums of products of full 8 bits overflow on x86: take 7.
    narrow = not cpu.has_int8() and platform.machine().lower() in ("x86_64", "amd64")

    def make(folder: Path) -> Mapping[str, Any]:
        in_integers(graph, folder / "graph.onnx", bits=7 if narrow else 8)
        return {"quantised": "rows and columns"}

    folder = settings.load().cache_dir / "quantised"
    name = f"{digest(graph)}-rows{_VERSION}{'-7bit' if narrow else ''}"
    made(folder / name, make)
    return folder / name / "graph.onnx"


def calibrated(graph: Path, feeds: Mapping[str, NDArray[Any]]) -> Path:
    """The same network for OpenVINO in 8-bit integers, weights and activations.

    Ranges of activations are learnt from examples (NNCF's post-training quantisation for
    transformers), so an answer does not depend on its batch-mates. Takes seconds to minutes.

    Args:
        graph: in fp32.
        feeds: what the graph takes for some pictures of the user's own, ``[n, …]`` each; tens are
            enough. Those of the first call count: later ones get the network that is there.

    Returns:
        Path of OpenVINO's ``.xml``.

    Raises:
        EncoderError: if it cannot be written, or NNCF fails.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        np.savez(folder / "feeds.npz", allow_pickle=False, **feeds)
        arguments = [str(path) for path in (graph, folder / "feeds.npz", folder / "graph.xml")]
        done = subprocess.run(
            [sys.executable, "-m", "retrieval.encoders.calibrate", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EncoderError(f"NNCF cannot quantise {graph}: {last}")
        (folder / "feeds.npz").unlink()
        return {"quantised": "nncf"}

    folder = settings.load().cache_dir / "quantised"
    name = f"{digest(graph)}-nncf{_VERSION}"
    made(folder / name, make)
    return folder / name / "graph.xml"


def digest(graph: Path) -> str:
    """Digest of a graph with its weights, 32 hex digits."""
    return weights_hash(weight_paths(graph, signature(graph)), settings.load().cache_dir)
