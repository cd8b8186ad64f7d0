"""Tiny visual checkpoints, and vision sides of language-aligned ones."""

from __future__ import annotations

from pathlib import Path

import transformers as tf

from tests.encoders.checkpoints.saving import PATCH, SIDE, VISION, cut, processor, save, square


def dinov2(folder: Path) -> Path:
    """With positions for another size than its input, as the published ones have."""
    config = tf.Dinov2Config(**{**VISION, "image_size": 2 * SIDE})
    return save(folder, tf.Dinov2Model, config, cut("Bit", SIDE, SIDE + 5))


def dinov2_registers(folder: Path) -> Path:
    """With registers and the gated network of the giant."""
    config = tf.Dinov2WithRegistersConfig(
        **{**VISION, "image_size": 2 * SIDE}, num_register_tokens=4, use_swiglu_ffn=True
    )
    return save(folder, tf.Dinov2WithRegistersModel, config, cut("Bit", SIDE, SIDE + 5))


def dinov3_vit(folder: Path) -> Path:
    """With registers and the gated network of the larger ones."""
    config = tf.DINOv3ViTConfig(
        **{**VISION, "image_size": 2 * SIDE}, num_register_tokens=4, use_gated_mlp=True
    )
    return save(folder, tf.DINOv3ViTModel, config, square("DINOv3ViT"))


def dinov3_convnext(folder: Path) -> Path:
    config = tf.DINOv3ConvNextConfig(hidden_sizes=[12, 24, 36, 48], depths=[1, 1, 2, 1])
    return save(folder, tf.DINOv3ConvNextModel, config, square("DINOv3ViT", 96), scale=0.2)


def mae(folder: Path) -> Path:
    """With the decoder that the published ones have, and 75 % masked in training."""
    config = tf.ViTMAEConfig(
        **VISION, decoder_hidden_size=24, decoder_num_attention_heads=2, decoder_num_hidden_layers=1
    )
    return save(folder, tf.ViTMAEForPreTraining, config, square())


def ijepa(folder: Path) -> Path:
    return save(folder, tf.IJepaModel, tf.IJepaConfig(**VISION), square())


def vit(folder: Path) -> Path:
    """A classifier: no pooler, and a head that no encoder needs."""
    return save(folder, tf.ViTForImageClassification, tf.ViTConfig(**VISION), square())


def deit(folder: Path) -> Path:
    """With a distillation token behind CLS."""
    config = tf.DeiTConfig(**VISION)
    return save(folder, tf.DeiTForImageClassificationWithTeacher, config, cut("DeiT"))


def msn(folder: Path) -> Path:
    return save(folder, tf.ViTMSNModel, tf.ViTMSNConfig(**VISION), square())


def aimv2_vision(folder: Path) -> Path:
    """Without pooling head and with computed positions, as the published *native* ones."""
    config = tf.Aimv2VisionConfig(**VISION, use_head=False, is_native=True)
    return save(folder, tf.Aimv2VisionModel, config, cut())


def aimv2_vision_head(folder: Path) -> Path:
    return save(folder, tf.Aimv2VisionModel, tf.Aimv2VisionConfig(**VISION), cut())


def clip_vision(folder: Path) -> Path:
    return save(folder, tf.CLIPVisionModel, tf.CLIPVisionConfig(**VISION), cut())


def clip_vision_projected(folder: Path) -> Path:
    config = tf.CLIPVisionConfig(**VISION, projection_dim=40)
    return save(folder, tf.CLIPVisionModelWithProjection, config, cut())


def metaclip2_vision(folder: Path) -> Path:
    config = tf.MetaClip2VisionConfig(**VISION, projection_dim=40)
    return save(folder, tf.MetaClip2VisionModelWithProjection, config, cut())


def siglip_vision(folder: Path) -> Path:
    return save(folder, tf.SiglipVisionModel, tf.SiglipVisionConfig(**VISION), square("Siglip"))


def siglip_vision_headless(folder: Path) -> Path:
    config = tf.SiglipVisionConfig(**VISION, vision_use_head=False)
    return save(folder, tf.SiglipVisionModel, config, square("Siglip"))


def naflex_vision(folder: Path) -> Path:
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    config = tf.Siglip2VisionConfig(**vision, num_patches=25)
    resizing = processor("Siglip2", patch_size=PATCH, max_num_patches=18)
    return save(folder, tf.Siglip2VisionModel, config, resizing)


VISUAL = {
    write.__name__: write
    for write in (
        dinov2,
        dinov2_registers,
        dinov3_vit,
        dinov3_convnext,
        mae,
        ijepa,
        vit,
        deit,
        msn,
        aimv2_vision,
        aimv2_vision_head,
        clip_vision,
        clip_vision_projected,
        metaclip2_vision,
        siglip_vision,
        siglip_vision_headless,
        naflex_vision,
    )
}
