"""Finding out which library's checkpoint a folder holds."""

from __future__ import annotations

from pathlib import Path

from retrieval.encoders.checkpoints.checkpoint import Checkpoint
from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.checkpoints.portable import Portable, is_portable, read_portable
from retrieval.errors import EncoderError


def open_folder(folder: Path, pooling: str | None = None) -> Checkpoint | Portable:
    """Read the facts of a checkpoint folder; the weights are not loaded yet.

    Args:
        folder: a folder that transformers, timm, open_clip or an export of this project wrote, a
            hub's folder of ready ONNX graphs, or an ``.onnx`` file with its facts beside it.
        pooling: ``cls``, ``mean``, ``cls+mean`` or ``gem`` in place of the family's own.

    Raises:
        EncoderError: if something is missing, not supported, or contradicts itself.
    """
    from retrieval.encoders.checkpoints import open_clip, ready_onnx, timm, transformers

    if is_portable(folder):
        return read_portable(folder, pooling)
    if ready_onnx.is_ready(folder):
        return ready_onnx.open_ready(folder, pooling)
    if (folder / open_clip.CONFIG).is_file() and not (folder / "model.safetensors").is_file():
        return open_clip.open_checkpoint(folder, pooling)
    config = read_json(folder, "config.json")
    if "model_type" in config:
        return transformers.open_checkpoint(folder, config, pooling)
    if "architecture" in config:
        return timm.open_checkpoint(folder, config, pooling)
    raise EncoderError(
        f"{folder}: its config.json is neither of transformers (model_type) nor of timm "
        "(architecture); save the encoder again with save_pretrained"
    )
