"""Tiny checkpoints of vision networks that have no row of their own."""

from __future__ import annotations

from pathlib import Path

import transformers as tf

from tests.encoders.checkpoints.saving import VISION, cut, processor, save, square

STAGES = {"hidden_sizes": [12, 24, 36, 48], "depths": [1, 1, 1, 1]}
SHORTEST = {"shortest_edge": 64}


def beit(folder: Path) -> Path:
    """With its pooler, relative positions and layer scale."""
    config = tf.BeitConfig(
        **VISION, use_mean_pooling=True, use_relative_position_bias=True, layer_scale_init_value=0.1
    )
    return save(folder, tf.BeitForImageClassification, config, square("Beit"))


def beit_pretrained(folder: Path) -> Path:
    """Trained without labels: its file has no pooler."""
    config = tf.BeitConfig(**VISION, vocab_size=20, use_mask_token=True)
    return save(folder, tf.BeitForMaskedImageModeling, config, square("Beit"))


def data2vec(folder: Path) -> Path:
    config = tf.Data2VecVisionConfig(**VISION)
    return save(folder, tf.Data2VecVisionModel, config, square("Beit"))


def convnext(folder: Path) -> Path:
    config = tf.ConvNextConfig(**STAGES, layer_scale_init_value=0.1)
    crop = processor("ConvNext", size=SHORTEST, crop_pct=0.875)
    return save(folder, tf.ConvNextForImageClassification, config, crop, scale=0.2)


def convnextv2(folder: Path) -> Path:
    crop = processor("ConvNext", size=SHORTEST, crop_pct=0.875)
    return save(folder, tf.ConvNextV2Model, tf.ConvNextV2Config(**STAGES), crop, scale=0.2)


def resnet(folder: Path) -> Path:
    config = tf.ResNetConfig(**STAGES, embedding_size=12, layer_type="basic")
    crop = processor("ConvNext", size=SHORTEST, crop_pct=0.875)
    return save(folder, tf.ResNetForImageClassification, config, crop)


def regnet(folder: Path) -> Path:
    config = tf.RegNetConfig(**STAGES, embedding_size=12, groups_width=12)
    crop = processor("ConvNext", size=SHORTEST, crop_pct=0.875)
    return save(folder, tf.RegNetModel, config, crop)


def swin(folder: Path) -> Path:
    config = tf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 3], window_size=4
    )
    return save(folder, tf.SwinForImageClassification, config, square(side=64))


def swinv2(folder: Path) -> Path:
    config = tf.Swinv2Config(
        image_size=64, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 3], window_size=4
    )
    return save(folder, tf.Swinv2Model, config, square(side=64))


def hiera(folder: Path) -> Path:
    config = tf.HieraConfig(
        image_size=[64, 64], embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]
    )
    return save(folder, tf.HieraModel, config, cut("Bit", 64, 72))


def pvt(folder: Path) -> Path:
    """A map in its first stages, and CLS in its last."""
    config = tf.PvtConfig(
        image_size=64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[12, 24, 36, 48],
        num_attention_heads=[1, 2, 3, 4],
    )
    return save(folder, tf.PvtModel, config, square("Pvt", 64))


def levit(folder: Path) -> Path:
    config = tf.LevitConfig(
        image_size=64,
        hidden_sizes=[16, 32, 48],
        depths=[1, 1, 1],
        num_attention_heads=[1, 2, 3],
        key_dim=[8, 8, 8],
    )
    return save(folder, tf.LevitModel, config, cut("Levit", 64, 64), scale=0.2)


def poolformer(folder: Path) -> Path:
    config = tf.PoolFormerConfig(**STAGES)
    crop = processor("PoolFormer", size=SHORTEST, crop_size={"height": 64, "width": 64})
    return save(folder, tf.PoolFormerModel, config, crop, scale=0.2)


def efficientnet(folder: Path) -> Path:
    config = tf.EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320
    )
    return save(folder, tf.EfficientNetModel, config, square("EfficientNet", 64), scale=0.6)


def segformer(folder: Path) -> Path:
    config = tf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[12, 24, 36, 48], num_attention_heads=[1, 2, 3, 4]
    )
    return save(folder, tf.SegformerModel, config, square("Segformer", 64))


BACKBONES = {
    write.__name__: write
    for write in (
        beit,
        beit_pretrained,
        data2vec,
        convnext,
        convnextv2,
        resnet,
        regnet,
        swin,
        swinv2,
        hiera,
        pvt,
        levit,
        poolformer,
        efficientnet,
        segformer,
    )
}
