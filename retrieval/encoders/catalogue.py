"""The encoders that have a name: their facts as data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.checkpoints.families import FAMILIES, SIGLIP2, Family
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.preprocess_config import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
)

DINOV2, CLIP, SIGLIP = FAMILIES["dinov2"], FAMILIES["clip"], FAMILIES["siglip"]
_APACHE = "Apache-2.0"
_OPENAI = "its makers advise against use without tests of your own, and against surveillance"

_DINOV2_224 = Preprocess(224, "shortest", 256, "bicubic", IMAGENET_MEAN, IMAGENET_STD, "floor")
_CLIP_224 = Preprocess(224, "shortest", 224, "bicubic", CLIP_MEAN, CLIP_STD, "floor")
_SIGLIP_224 = Preprocess(224, "squash", 224, "bicubic", HALF, HALF)
_SIGLIP2_224 = Preprocess(224, "squash", 224, "bilinear", HALF, HALF)


def _spec(
    name: str,
    family: Family,
    dim: int,
    preprocess: Preprocess,
    source: str,
    size_mb: float,
    summary: str,
    licence: str = _APACHE,
    terms: str = "",
    logit_scale: float | None = None,
) -> EncoderSpec:
    """One hub encoder; ``source`` is ``owner/name@commit``."""
    repository, _, revision = source.partition("@")
    return EncoderSpec(
        name=name,
        family=family.label,
        dim=dim,
        modalities=family.modalities,
        preprocess=preprocess,
        pooling=family.pooling,
        source=repository,
        revision=revision,
        licence=licence,
        size_mb=size_mb,
        summary=summary,
        logit_scale=logit_scale,
        prompt=family.prompt,
        terms=terms,
    )


_HUB = (
    _spec(
        "dinov2-small",
        DINOV2,
        384,
        _DINOV2_224,
        "facebook/dinov2-small@ed25f3a31f01632728cabb09d1542f84ab7b0056",
        88,
        "looks alike: the first step up from pocket-visual; fine on a CPU",
    ),
    _spec(
        "dinov2-base",
        DINOV2,
        768,
        _DINOV2_224,
        "facebook/dinov2-base@f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        346,
        "looks alike: better near-duplicates and kNN labels, four times the work of small",
    ),
    _spec(
        "dinov2-large",
        DINOV2,
        1024,
        _DINOV2_224,
        "facebook/dinov2-large@47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        1218,
        "looks alike: the best here, for a GPU",
    ),
    _spec(
        "clip-vit-b-32",
        CLIP,
        512,
        _CLIP_224,
        # The commit that holds the safetensors of this repository; its main branch has none.
        "openai/clip-vit-base-patch32@c237dc49a33fc61debc9276459120b7eac67e7ef",
        605,
        "words, English: the fastest of the hub's language encoders",
        "MIT",
        _OPENAI,
        100.0,
    ),
    _spec(
        "clip-vit-l-14",
        CLIP,
        768,
        _CLIP_224,
        "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41",
        1711,
        "words, English: large; siglip-base finds captions better for a fifth of the work",
        "MIT",
        _OPENAI,
        100.0,
    ),
    _spec(
        "siglip-base",
        SIGLIP,
        768,
        _SIGLIP_224,
        "google/siglip-base-patch16-224@7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",
        813,
        "words, English: much better than CLIP at the same size",
    ),
    _spec(
        "siglip2-base",
        SIGLIP2,
        768,
        _SIGLIP2_224,
        "google/siglip2-base-patch16-224@75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
        1536,
        "words, more than 100 languages: the one to take for text search",
    ),
)


@cache
def specs() -> Mapping[str, EncoderSpec]:
    """All encoders that have a name, by name; the ones that need no download first."""
    from retrieval.encoders.pocket import SPECS

    return MappingProxyType({spec.name: spec for spec in (*SPECS, *_HUB)})
