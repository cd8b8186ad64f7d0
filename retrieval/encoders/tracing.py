"""A network in torch as an ONNX graph, and how far apart the two are."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.runtimes.onnx import OnnxGraph
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.towers import Tower

LEAST_COSINE = 0.9999
"""A graph whose answers are further than this from the network's own is refused."""

_OPSET = 17
_LARGE_BYTES = 1_900_000_000  # a protobuf holds two gigabytes
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an ONNX graph is from the network that it was made from.

    Attributes:
        tower: ``image``, ``patches`` or ``text``.
        max_abs_difference: largest difference of any number of any output.
        min_cosine: of any row of any output.
        inputs: how many were compared, in batches of several sizes.
    """

    tower: str
    max_abs_difference: float
    min_cosine: float
    inputs: int


def trace(
    name: str, tower: Tower, batches: Sequence[Feeds], path: Path, *, any_length: bool
) -> Parity:
    """Write a tower as a graph for any number of inputs, and compare the two.

    Args:
        name: of the tower, for messages.
        tower: the network.
        batches: inputs in batches of different sizes; the second one is traced, so that a size
            that stuck would show with the others.
        path: the ``.onnx`` file; weights of two gigabytes or more go into ``path`` + ``.data``.
        any_length: whether texts of any length are taken.

    Raises:
        EncoderError: if the network cannot be traced, or the graph does not run or gives other
            answers.
        OSError: if it cannot be written.
    """
    _write(name, tower, batches[1], path, any_length)
    try:
        parity = _compare(name, tower, path, batches)
    except EncoderError as error:
        raise EncoderError(_refusal(name, f"does not run: {error}")) from error
    if not parity.min_cosine >= LEAST_COSINE:
        why = f"gives other answers (cosine {parity.min_cosine:.6f}, bound {LEAST_COSINE})"
        raise EncoderError(_refusal(name, why))
    return parity


def _refusal(name: str, why: str) -> str:
    return f"{name} as ONNX {why}; run this encoder with a precision of torch: fp32, bf16 or fp16"


def _write(name: str, tower: Tower, feeds: Feeds, path: Path, any_length: bool) -> None:
    """Trace the network and write the graph.

    The exporter of torch that traces is the one that is used: the newer one needs two packages
    more, takes ten times as long, and fails where a node is called as an output.
    """
    import torch

    size = sum(weight.nbytes for weight in tower.state_dict().values())
    axes = {each: {0: "n"} for each in (*tower.inputs, *tower.outputs)}
    if any_length:
        axes |= {each: {0: "n", 1: "length"} for each in tower.inputs}
    raw = path if size < _LARGE_BYTES else path.with_suffix("") / path.name
    raw.parent.mkdir(exist_ok=True)
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                tower,
                tuple(torch.from_numpy(feeds[each]) for each in tower.inputs),
                str(raw),
                input_names=list(tower.inputs),
                output_names=list(tower.outputs),
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except OSError:
        raise
    except Exception as error:  # whatever a network's code raises when it is traced
        raise EncoderError(_refusal(name, f"cannot be had: {error}")) from error
    if raw != path:
        _gather(raw, path)


def _gather(raw: Path, path: Path) -> None:
    """One file for all weights, where the exporter wrote a file for each."""
    import onnx

    onnx.save_model(
        onnx.load(raw),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )
    shutil.rmtree(raw.parent)


def _compare(name: str, tower: Tower, path: Path, batches: Sequence[Feeds]) -> Parity:
    import torch

    graph = OnnxGraph(path, threads=0)
    worst, cosine, count = 0.0, 1.0, 0
    for feeds in batches:
        with torch.inference_mode():
            given = tower(*(torch.from_numpy(feeds[each]) for each in tower.inputs))
        expected = [rows.numpy() for rows in (given if isinstance(given, tuple) else (given,))]
        for ours, theirs in zip(graph.run(feeds, tower.outputs), expected, strict=True):
            if ours.shape != theirs.shape:
                raise EncoderError(f"{ours.shape} in place of {theirs.shape}")
            worst = max(worst, float(np.abs(ours - theirs).max()))
            cosine = min(cosine, _least_cosine(ours, theirs))
        count += len(expected[0])
    return Parity(name, worst, cosine, count)


def _least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = (rows.reshape(-1, rows.shape[-1]).astype(np.float64) for rows in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(axis=1) / norms).min())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch has to say about its exporter; the comparison is what counts."""
    import torch

    # It asks this function, forgets to call it, and so logs whole graphs to standard output.
    name = "_jit_is_onnx_log_enabled"
    asked = getattr(torch._C, name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if asked is not None:
            setattr(torch._C, name, _No())
        try:
            yield
        finally:
            if asked is not None:
                setattr(torch._C, name, asked)


class _No:
    """Says no, called or not."""

    def __bool__(self) -> bool:
        return False

    def __call__(self) -> bool:
        return False
