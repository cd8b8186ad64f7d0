"""ONNX files, looked at without running them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import EncoderError

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph on disk, and what this project calls its inputs and outputs.

    Attributes:
        path: the ``.onnx`` file; large weights may lie in files beside it.
        names: the graph's name of ``pixels``, ``ids``, ``mask``, ``embedding``, …; empty where
            they are called so.
        pooling: how ``embedding`` is pooled, where it is the last layer's tokens; None where it is
            ``[n, dim]``.
    """

    path: Path
    names: Mapping[str, str]
    pooling: str | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph by name; None for a length that is not fixed."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    weights: tuple[str, ...]
    """Names of the files beside the graph that hold weights."""


def signature(path: Path) -> Signature:
    """Read inputs, outputs and the names of weight files.

    Raises:
        EncoderError: if it is no ONNX file.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's own errors among them
        raise EncoderError(f"{path} cannot be read as ONNX: {error}") from error
    known = {tensor.name for tensor in graph.initializer}
    locations = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return Signature(
        {node.name: _shape(node) for node in graph.input if node.name not in known},
        {node.name: _shape(node) for node in graph.output},
        tuple(sorted(locations)),
    )


def weight_paths(path: Path, found: Signature) -> tuple[Path, ...]:
    """The graph and the files beside it that hold its weights.

    Raises:
        EncoderError: if one of them is missing or lies elsewhere.
    """
    files = (path, *(path.parent / name for name in found.weights))
    for each in files:
        if each.parent != path.parent and path.parent not in each.resolve().parents:
            raise EncoderError(f"{path} wants weights outside of its folder: {each}")
        if not each.is_file():
            raise EncoderError(f"{path} lacks its weights {each.name}: copy that file beside it")
    return files


def _shape(node: object) -> Shape:
    dims = node.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
