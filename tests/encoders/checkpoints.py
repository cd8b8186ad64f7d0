"""Tiny checkpoints of the real transformers classes, with seeded random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SIDE, PATCH = 32, 8
SENTENCES = (
    "a photo of a small dog on a beach",
    "two red cars in front of a house",
    "a plate of food, a cup of coffee and a knife",
    "people playing football in the rain",
)
TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
VISION = {**TOWER, "image_size": SIDE, "patch_size": PATCH}


def dinov2(folder: Path) -> Path:
    """DINOv2 with positions for another size than its input, as the published ones have."""
    config = tf.Dinov2Config(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=2 * SIDE,
        patch_size=PATCH,
    )
    processor = tf.models.bit.image_processing_pil_bit.BitImageProcessorPil(
        size={"shortest_edge": SIDE + 5},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return _save(folder, tf.Dinov2Model, config, processor)


def clip(folder: Path) -> Path:
    """CLIP with a byte-level BPE tokenizer."""
    tokenizer = _clip_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = tf.CLIPConfig(
        text_config={
            **TOWER,
            **ids,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 77,
        },
        vision_config=VISION,
        projection_dim=40,
    )
    processor = tf.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return _save(folder, tf.CLIPModel, config, processor, tokenizer)


def siglip(folder: Path) -> Path:
    """SigLIP with a Unigram tokenizer that cleans texts as the published one does."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(SENTENCES * 4, trainer)
    return _save_siglip(folder, inner, {"eos": "</s>", "pad": "</s>"}, "bicubic", "SiglipTokenizer")


def siglip2(folder: Path) -> Path:
    """SigLIP 2 of fixed resolution: SigLIP's classes and a tokenizer in Gemma's form."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    inner.train_from_iterator(SENTENCES * 4, trainer)
    return _save_siglip(
        folder, inner, {"eos": "<eos>", "pad": "<pad>"}, "bilinear", "GemmaTokenizer"
    )


FAMILIES = {"dinov2": dinov2, "clip": clip, "siglip": siglip, "siglip2": siglip2}


def _clip_tokenizer() -> tf.CLIPTokenizer:
    inner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|startoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([word for line in SENTENCES for word in line.split()] * 4, trainer)
    model = json.loads(inner.to_str())["model"]
    for byte in pre_tokenizers.ByteLevel.alphabet():
        model["vocab"].setdefault(f"{byte}</w>", len(model["vocab"]))
    # The last id, as in the published vocabulary: CLIP pools at the highest id.
    model["vocab"]["<|endoftext|>"] = len(model["vocab"])
    return tf.CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def _save_siglip(
    folder: Path, inner: Tokenizer, special: dict[str, str], resample: str, tokenizer_class: str
) -> Path:
    ids = {f"{name}_token_id": inner.token_to_id(token) for name, token in special.items()}
    config = tf.SiglipConfig(
        text_config={
            **TOWER,
            "vocab_size": inner.get_vocab_size(),
            "max_position_embeddings": 64,
            "bos_token_id": None,
            **ids,
        },
        vision_config=VISION,
    )
    processor = tf.models.siglip.image_processing_pil_siglip.SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, resample={"bilinear": 2, "bicubic": 3}[resample]
    )
    _save(folder, tf.SiglipModel, config, processor)
    inner.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": tokenizer_class, "model_max_length": 64}
    facts |= {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder


def _save(
    folder: Path, model_class: type, config: object, processor: object, tokenizer: object = None
) -> Path:
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Far enough from zero that layers matter and every input gives its own vector.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    for part in (processor, tokenizer):
        if part is not None:
            part.save_pretrained(folder)
    return folder
