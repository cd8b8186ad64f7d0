"""Tiny checkpoints that timm itself writes, with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {**SMALL, "img_size": 64}, {"input_size": (3, 64, 64)}),
    "dinov2_registers": (
        "vit_small_patch14_reg4_dinov2",
        {**SMALL, "img_size": 56},
        {"input_size": (3, 56, 56), "crop_pct": 1.0},
    ),
    "dinov3": (
        "vit_small_patch16_dinov3",
        {**SMALL, "img_size": 64},
        {"input_size": (3, 64, 64), "crop_pct": 1.0},
    ),
    "eva02": (
        "eva02_tiny_patch14_224",
        {**SMALL, "img_size": 56},
        {"input_size": (3, 56, 56), "crop_pct": 0.9},
    ),
    "registers_without_cls": (
        "vit_medium_patch16_reg4_gap_256",
        {**SMALL, "img_size": 64},
        {"input_size": (3, 64, 64), "crop_mode": "border", "crop_pct": 0.95},
    ),
    "siglip": (
        "vit_base_patch16_siglip_224",
        {**SMALL, "img_size": 64},
        {"input_size": (3, 64, 64), "crop_mode": "squash", "crop_pct": 1.0, **HALF},
    ),
    "convnext": (
        "convnext_atto",
        {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48)},
        {"input_size": (3, 64, 64), "interpolation": "bilinear"},
    ),
    "resnet": ("test_resnet", {}, {"input_size": (3, 64, 64)}),
    "efficientnet": ("mobilenetv3_small_050", {}, {"input_size": (3, 64, 64)}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4), "img_size": 56},
        {"input_size": (3, 56, 56)},
    ),
    "hybrid": ("test_coatnet", {"img_size": 64}, {"input_size": (3, 64, 64)}),
    "fastvit": ("fastvit_t8", {}, {"input_size": (3, 64, 64), "crop_pct": 1.0}),
    "two_scales": ("crossvit_9_240", {"depth": ((1, 1, 0),)}, {"input_size": (3, 240, 240)}),
}


def write(folder: Path, name: str, *, num_classes: int = 7) -> Path:
    """Save one of ``ARCHITECTURES`` as timm pushes it to the hub, classifier included."""
    architecture, arguments, data = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=num_classes, **arguments)
    shake(model)
    save_for_hf(model, folder, safe_serialization=True, data_config=data)
    return folder


@torch.no_grad()
def shake(model: torch.nn.Module, by: float = 0.1) -> None:
    """Move every weight and running statistic so far that all of them matter."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * by)
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
