"""The architectures of transformers that have a row here, by their ``model_type``."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.encoders.tokens import TextRule
from retrieval.types import Modality

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of transformers.

    Attributes:
        label: its name for people, as ``SigLIP 2``.
        model_class: the class that reads its checkpoints.
        build: how its towers are cut out: a name of ``towers.transformers``.
        pooling: how its last layer becomes one vector.
        mean: per channel, where the checkpoint does not say.
        std: per channel, where the checkpoint does not say.
        text: how its text side reads text; None for a visual encoder.
        prompt: template around a bare word that its makers evaluate with.
    """

    label: str
    model_class: str
    build: str
    pooling: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    text: TextRule | None = None
    prompt: str = "{}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What its encoders can embed."""
        return ("image",) if self.text is None else ("image", "text")


_CLIP_TEXT = TextRule(start="<|startoftext|>", end="<|endoftext|>", pad="<|endoftext|>", context=77)
_SIGLIP_TEXT = TextRule(
    start=None, end="</s>", pad="</s>", context=64, fill=True, clean="canonical"
)
_GEMMA_TEXT = TextRule(start=None, end="<eos>", pad="<pad>", context=64, fill=True, clean="lower")
_SIGLIP_PROMPT = "this is a photo of {}"

SIGLIP2 = Family(
    "SigLIP 2", "SiglipModel", "siglip", "attention", HALF, HALF, _GEMMA_TEXT, _SIGLIP_PROMPT
)
FAMILIES = {
    "dinov2": Family("DINOv2", "Dinov2Model", "visual", "cls"),
    "clip": Family(
        "CLIP",
        "CLIPModel",
        "clip",
        "cls-projection",
        CLIP_MEAN,
        CLIP_STD,
        _CLIP_TEXT,
        "a photo of a {}",
    ),
    "siglip": Family(
        "SigLIP", "SiglipModel", "siglip", "attention", HALF, HALF, _SIGLIP_TEXT, _SIGLIP_PROMPT
    ),
}
