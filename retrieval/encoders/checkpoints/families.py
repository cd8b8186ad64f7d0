"""The architectures of transformers that have a row here, by their ``model_type``.

Vision networks without a row are read as :mod:`retrieval.encoders.towers.backbones` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrieval.encoders.names import POOLINGS
from retrieval.encoders.tokens import TextRule
from retrieval.types import Modality


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of transformers.

    Attributes:
        label: its name for people, as ``SigLIP 2``.
        model_class: the class that reads its checkpoints.
        build: how its towers are cut out: a name of ``towers.transformers``.
        pooling: how its last layer becomes one vector, unless another way is asked for. For visual
            encoders that by which their makers evaluate frozen features, where they need no
            training for it.
        poolings: the ways that can be asked for.
        prefix: tokens before those of the places, registers not counted.
        registers: register tokens. This and the next four are the defaults of the configuration
            class: ``save_pretrained`` leaves them out of nested configurations.
        width: length of a token.
        patch_px: side of a patch, pixels.
        side_px: side of the input, pixels; None where any is taken.
        projection: length of an embedding; None where it is as long as a token.
        text: how its text side reads text; None for a visual encoder.
        reads: the same for people, with ``{}`` for the number of tokens.
        prompt: template around a bare word that its makers evaluate with.
    """

    label: str
    model_class: str
    build: str
    pooling: str
    poolings: tuple[str, ...] = ()
    prefix: int = 0
    registers: int = 0
    width: int = 768
    patch_px: int = 16
    side_px: int | None = 224
    projection: int | None = None
    text: TextRule | None = None
    reads: str = ""
    prompt: str = "{}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What its encoders can embed."""
        return ("image",) if self.text is None else ("image", "text")


NO_CLS = ("mean", "gem")

_MANY = "more than 100 languages"
_CLIP_TEXT = TextRule(start="<|startoftext|>", end="<|endoftext|>", pad="<|endoftext|>", context=77)
_XLM_TEXT = TextRule(start="<s>", end="</s>", pad="<pad>", context=77)
# transformers would take up to 512 tokens, but training and the makers' own code stop at 52.
_BERT_TEXT = TextRule(start="[CLS]", end="[SEP]", pad="[PAD]", context=52)
_SIGLIP_TEXT = TextRule(
    start=None, end="</s>", pad="</s>", context=64, fill=True, clean="canonical"
)
_GEMMA_TEXT = TextRule(start=None, end="<eos>", pad="<pad>", context=64, fill=True, clean="lower")

_VIT = Family("ViT", "ViTModel", "visual", "cls", POOLINGS, prefix=1)
_DINOV2 = replace(_VIT, label="DINOv2", model_class="Dinov2Model", build="dinov2", side_px=None)
_CLIP = Family(
    "CLIP",
    "CLIPModel",
    "clip",
    "cls-projection",
    prefix=1,
    patch_px=32,
    projection=512,
    text=_CLIP_TEXT,
    reads="BPE, {} tokens, English",
    prompt="a photo of a {}",
)
_METACLIP2 = replace(
    _CLIP,
    label="MetaCLIP 2",
    model_class="MetaClip2Model",
    text=_XLM_TEXT,
    reads="Unigram, {} tokens, more than 300 languages",
)
_SIGLIP = Family(
    "SigLIP",
    "SiglipModel",
    "siglip",
    "attention",
    text=_SIGLIP_TEXT,
    reads="Unigram, {} tokens, English",
    prompt="this is a photo of {}",
)
_NAFLEX = replace(
    _SIGLIP,
    label="SigLIP 2",
    model_class="Siglip2Model",
    build="naflex",
    side_px=None,
    text=_GEMMA_TEXT,
    reads=f"BPE, {{}} tokens, {_MANY}",
)
_AIMV2 = replace(
    _CLIP,
    label="AIMv2",
    model_class="Aimv2Model",
    build="aimv2",
    pooling="attention-projection",
    prefix=0,
    width=1024,
    patch_px=14,
)

# What shares a model_type with another family, and differs in how it reads text.
SIGLIP2 = replace(_NAFLEX, model_class="SiglipModel", build="siglip", side_px=224)
SIGLIP_MULTILINGUAL = replace(_SIGLIP, reads=f"Unigram, {{}} tokens, {_MANY}")
METACLIP2_MT5 = replace(_METACLIP2, text=_SIGLIP_TEXT, reads=f"Unigram, {{}} tokens, {_MANY}")


def _eyes(family: Family, model_class: str, pooling: str, poolings: tuple[str, ...]) -> Family:
    """The vision side of a language-aligned family alone."""
    return replace(
        family,
        model_class=model_class,
        build=f"{family.build}-vision",
        pooling=pooling,
        poolings=poolings,
        text=None,
        reads="",
        prompt="{}",
    )


_CLIP_EYES = _eyes(_CLIP, "CLIPVisionModelWithProjection", "cls-projection", ())

FAMILIES = {
    "aimv2": _AIMV2,
    # Its makers train an attentive probe, which the checkpoint lacks: the mean needs no training.
    "aimv2_vision_model": replace(
        _eyes(_AIMV2, "Aimv2VisionModel", "mean", NO_CLS), projection=None
    ),
    "altclip": replace(
        _CLIP,
        label="AltCLIP",
        model_class="AltCLIPModel",
        build="altclip",
        projection=768,
        text=_XLM_TEXT,
        reads="Unigram, {} tokens, English and Chinese",
    ),
    "chinese_clip": replace(
        _CLIP,
        label="Chinese-CLIP",
        model_class="ChineseCLIPModel",
        build="chinese-clip",
        text=_BERT_TEXT,
        reads="WordPiece, {} tokens, Chinese",
        prompt="{}的照片",
    ),
    "clip": _CLIP,
    "clip_vision_model": _CLIP_EYES,
    "deit": replace(_VIT, label="DeiT", model_class="DeiTModel", prefix=2),
    "dinov2": replace(_DINOV2, patch_px=14),
    "dinov2_with_registers": replace(_DINOV2, model_class="Dinov2WithRegistersModel", registers=4),
    # The token in the place of CLS is the norm of the mean of the places.
    "dinov3_convnext": Family(
        "DINOv3",
        "DINOv3ConvNextModel",
        "convnext",
        "mean-norm",
        NO_CLS,
        1,
        patch_px=32,
        side_px=None,
    ),
    "dinov3_vit": replace(
        _VIT, label="DINOv3", model_class="DINOv3ViTModel", width=384, side_px=None
    ),
    "ijepa": Family("I-JEPA", "IJepaModel", "visual", "mean", NO_CLS),
    "metaclip_2": _METACLIP2,
    "metaclip_2_vision_model": replace(
        _CLIP_EYES, label="MetaCLIP 2", model_class="MetaClip2VisionModelWithProjection"
    ),
    "siglip": _SIGLIP,
    "siglip2": _NAFLEX,
    "siglip2_vision_model": _eyes(_NAFLEX, "Siglip2VisionModel", "attention", NO_CLS),
    "siglip_vision_model": _eyes(_SIGLIP, "SiglipVisionModel", "attention", NO_CLS),
    "vit": _VIT,
    # Its paper finds CLS and the mean equal in linear probing; the mean needs no trained token.
    "vit_mae": replace(_VIT, label="MAE", model_class="ViTMAEModel", build="mae", pooling="mean"),
    "vit_msn": replace(_VIT, label="MSN", model_class="ViTMSNModel"),
}
