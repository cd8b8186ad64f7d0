"""Tiny language-aligned checkpoints."""

from __future__ import annotations

from pathlib import Path

import transformers as tf
from tokenizers import Tokenizer

from tests.encoders.checkpoints import texts
from tests.encoders.checkpoints.saving import PATCH, TOWER, VISION, cut, processor, save, square


def clip(folder: Path) -> Path:
    tokenizer = texts.bpe()
    config = tf.CLIPConfig(
        text_config={**TOWER, **_ids(tokenizer), "max_position_embeddings": 77},
        vision_config=VISION,
        projection_dim=40,
    )
    return save(folder, tf.CLIPModel, config, cut(), tokenizer)


def metaclip2(folder: Path) -> Path:
    tokenizer = texts.xlm()
    config = tf.MetaClip2Config(
        text_config={**TOWER, **_ids(tokenizer), "max_position_embeddings": 77},
        vision_config=VISION,
        projection_dim=40,
    )
    return save(folder, tf.MetaClip2Model, config, cut(), tokenizer)


def metaclip2_mt5(folder: Path) -> Path:
    """The one with SigLIP's tokenizer, which knows no start."""
    inner = texts.unigram()
    config = tf.MetaClip2Config(
        text_config={
            **TOWER,
            "vocab_size": inner.get_vocab_size(),
            "max_position_embeddings": 77,
            "bos_token_id": None,
            "eos_token_id": inner.token_to_id("</s>"),
            "pad_token_id": None,
        },
        vision_config=VISION,
        projection_dim=40,
    )
    save(folder, tf.MetaClip2Model, config, cut())
    return texts.write(folder, inner, "SiglipTokenizer", eos="</s>", pad="</s>")


def aimv2(folder: Path) -> Path:
    """AIMv2-LiT, whose logit scale grew over its bound."""
    tokenizer = texts.bpe()
    config = tf.Aimv2Config(
        text_config={**TOWER, **_ids(tokenizer), "max_position_embeddings": 77},
        vision_config=VISION,
        projection_dim=40,
        logit_scale_init_value=5.5,
    )
    return save(folder, tf.Aimv2Model, config, cut(), tokenizer)


def chinese_clip(folder: Path) -> Path:
    tokenizer = texts.wordpiece()
    config = tf.ChineseCLIPConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer)}, vision_config=VISION, projection_dim=40
    )
    return save(folder, tf.ChineseCLIPModel, config, cut("ChineseCLIP"), tokenizer)


def altclip(folder: Path) -> Path:
    tokenizer = texts.xlm()
    config = tf.AltCLIPConfig(
        text_config={**TOWER, **_ids(tokenizer), "project_dim": 36},
        vision_config=VISION,
        projection_dim=40,
    )
    return save(folder, tf.AltCLIPModel, config, cut(), tokenizer, scale=0.2)


def siglip(folder: Path) -> Path:
    inner = texts.unigram()
    config = tf.SiglipConfig(text_config=_siglip_text(inner, "</s>", "</s>"), vision_config=VISION)
    save(folder, tf.SiglipModel, config, square("Siglip"))
    return texts.write(folder, inner, "SiglipTokenizer", eos="</s>", pad="</s>")


def siglip2(folder: Path) -> Path:
    """Of fixed resolution: SigLIP's classes and a tokenizer in Gemma's form."""
    inner = texts.gemma()
    text = _siglip_text(inner, "<eos>", "<pad>")
    resizing = processor("Siglip", size={"height": 32, "width": 32}, resample=2)
    save(folder, tf.SiglipModel, tf.SiglipConfig(text_config=text, vision_config=VISION), resizing)
    return texts.write(folder, inner, "GemmaTokenizer", eos="<eos>", pad="<pad>")


def naflex(folder: Path) -> Path:
    """SigLIP 2 of variable resolution."""
    inner = texts.gemma()
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    config = tf.Siglip2Config(
        text_config={**_siglip_text(inner, "<eos>", "<pad>"), "projection_size": 48},
        vision_config={**vision, "num_patches": 25},
    )
    save(
        folder, tf.Siglip2Model, config, processor("Siglip2", patch_size=PATCH, max_num_patches=18)
    )
    return texts.write(folder, inner, "GemmaTokenizer", eos="<eos>", pad="<pad>")


ALIGNED = {
    write.__name__: write
    for write in (
        clip,
        metaclip2,
        metaclip2_mt5,
        aimv2,
        chinese_clip,
        altclip,
        siglip,
        siglip2,
        naflex,
    )
}


def _ids(tokenizer: tf.PreTrainedTokenizerBase) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _siglip_text(inner: Tokenizer, end: str, pad: str) -> dict[str, object]:
    return {
        **TOWER,
        "vocab_size": inner.get_vocab_size(),
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": inner.token_to_id(end),
        "pad_token_id": inner.token_to_id(pad),
    }
