"""Folders of a hub that hold transformers' networks as ready ONNX graphs: no torch needed.

Their layout: ``config.json``, ``preprocessor_config.json`` and ``tokenizer.json`` as transformers
writes them, and ``onnx/model.onnx``, or ``onnx/vision_model.onnx`` and ``onnx/text_model.onnx``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retrieval import settings
from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints import transformers
from retrieval.encoders.checkpoints.families import FAMILIES
from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.checkpoints.onnx_files import Signature, signature, weight_paths
from retrieval.encoders.checkpoints.own_onnx import Found, image_file, text_file
from retrieval.encoders.checkpoints.packages import missing
from retrieval.encoders.checkpoints.portable import Portable
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.names import POOLINGS
from retrieval.errors import EncoderError

_IMAGE = ("vision_model.onnx", "model.onnx")
_TEXT = "text_model.onnx"
# These shuffle and drop patches, which a graph keeps.
_NOT_FOR_PICTURES = {"vit_mae"}


def is_ready(folder: Path) -> bool:
    """Whether :func:`open_ready` is the one to open this."""
    weights = any(folder.glob("*.safetensors")) and not missing("torch")
    return not weights and any((folder / "onnx" / name).is_file() for name in _IMAGE)


def open_ready(folder: Path, pooling: str | None = None) -> Portable:
    """Read the facts of a folder; the graphs are not loaded yet.

    Args:
        folder: the folder above ``onnx``.
        pooling: of a visual encoder, in place of its family's own.

    Raises:
        EncoderError: if something is missing or not supported.
    """
    config = read_json(folder, "config.json")
    kind = config.get("model_type")
    if kind not in FAMILIES or kind in _NOT_FOR_PICTURES:
        raise EncoderError(
            f"{folder} holds ONNX graphs of a network of type {kind!r}, which is not known here; "
            "its safetensors may be, with torch: pip install torch transformers"
        )
    image = next(path for name in _IMAGE if (path := folder / "onnx" / name).is_file())
    seen = {image: signature(image)}
    text = folder / "onnx" / _TEXT if FAMILIES[kind].text else None
    if text and not text.is_file():
        raise EncoderError(f"{folder} lacks onnx/{_TEXT}, and so its text side")
    if text:
        seen[text] = signature(text)
    files = tuple(file for path, graph in seen.items() for file in weight_paths(path, graph))
    family, spec = transformers.described(folder, config, pooling, files)
    found = _image_side(folder, image, seen[image], spec)
    graphs = {"image": found.file}
    if "patches" in found.file.names:
        graphs["patches"] = found.file
    else:
        spec = replace(spec, patch_px=None)
    if text:
        graphs["text"] = text_file(text, seen[text])
    digest = weights_hash(files, settings.load().cache_dir)
    tokenizer = transformers.tokenizer_of(folder, family)
    return Portable(folder, replace(spec, library="onnx"), digest, graphs, tokenizer)


def _image_side(folder: Path, path: Path, graph: Signature, spec: EncoderSpec) -> Found:
    """The graph with the output that the pooling needs."""
    pooling = spec.pooling if spec.pooling in POOLINGS and len(spec.modalities) == 1 else None
    wanted = ("last_hidden_state",) if pooling else ("image_embeds", "pooler_output")
    output = next((name for name in wanted if name in graph.outputs), None)
    if output is None:
        raise EncoderError(
            f"{path} gives {', '.join(graph.outputs)}, not {' or '.join(wanted)}, which "
            f"{spec.family} with pooling {spec.pooling} needs"
        )
    chosen = Signature(graph.inputs, {output: graph.outputs[output]}, graph.weights)
    found = image_file(path, chosen, pooling, folder / "config.json")
    if found.dim not in (None, spec.dim):
        raise EncoderError(f"{path} gives {found.dim} numbers, not the {spec.dim} of config.json")
    return found
