"""What all tiny checkpoints have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

SIDE, PATCH = 32, 8
TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
VISION = {**TOWER, "image_size": SIDE, "patch_size": PATCH}


def processor(kind: str, **facts: object) -> Any:
    """The library's image processor of that name: its version on Pillow where there is one."""
    on_pillow = get_image_processor_class_from_name(f"{kind}ImageProcessorPil")
    return (on_pillow or get_image_processor_class_from_name(f"{kind}ImageProcessor"))(**facts)


def square(kind: str = "ViT", side: int = SIDE) -> Any:
    """A processor that squashes pictures."""
    return processor(kind, size={"height": side, "width": side})


def cut(kind: str = "CLIP", side: int = SIDE, shortest: int = SIDE) -> Any:
    """A processor that cuts the middle out."""
    return processor(
        kind, size={"shortest_edge": shortest}, crop_size={"height": side, "width": side}
    )


def save(
    folder: Path,
    model_class: type,
    config: object,
    processor: object,
    tokenizer: object = None,
    scale: float = 0.05,
) -> Path:
    """Write a checkpoint whose every weight matters."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Far enough from zero that layers matter and every input gives its own vector.
            parameter.add_(torch.randn_like(parameter) * scale)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.05)
            elif name.endswith("running_var"):
                buffer.uniform_(0.2, 0.4)
    tf.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    for part in (processor, tokenizer):
        if part is not None:
            part.save_pretrained(folder)
    return folder
