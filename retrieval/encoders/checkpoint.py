"""What a checkpoint folder holds: its family, its facts, its weights."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.files import put
from retrieval.encoders.preprocess import Preprocess
from retrieval.encoders.tokens import TextRule
from retrieval.errors import EncoderError
from retrieval.types import Modality

_log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

_RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture that the transformers runtime can run.

    Attributes:
        label: its name for people, as ``SigLIP 2``.
        model_class: the class in ``transformers`` that reads its checkpoints.
        pooling: how its last layer becomes one vector.
        mean: per channel, where the checkpoint does not say.
        std: per channel, where the checkpoint does not say.
        text: how its text side reads text; None for a visual encoder.
        prompt: template around a bare word that its makers evaluate with.
    """

    label: str
    model_class: str
    pooling: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: TextRule | None = None
    prompt: str = "{}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What its encoders can embed."""
        return ("image",) if self.text is None else ("image", "text")


DINOV2 = Family("DINOv2", "Dinov2Model", "cls", IMAGENET_MEAN, IMAGENET_STD)
CLIP = Family(
    "CLIP",
    "CLIPModel",
    "cls-projection",
    CLIP_MEAN,
    CLIP_STD,
    TextRule(start="<|startoftext|>", end="<|endoftext|>", pad="<|endoftext|>", context=77),
    prompt="a photo of a {}",
)
SIGLIP = Family(
    "SigLIP",
    "SiglipModel",
    "attention",
    HALF,
    HALF,
    TextRule(start=None, end="</s>", pad="</s>", context=64, fill=True, clean="canonical"),
    prompt="this is a photo of {}",
)
SIGLIP2 = Family(
    "SigLIP 2",
    "SiglipModel",
    "attention",
    HALF,
    HALF,
    TextRule(start=None, end="<eos>", pad="<pad>", context=64, fill=True, clean="lower"),
    prompt="this is a photo of {}",
)


def family_of(folder: Path) -> Family:
    """The family of the checkpoint in ``folder``, from its ``config.json``.

    Raises:
        EncoderError: if there is no readable config, or the architecture is not supported.
    """
    kind = _read(folder, "config.json").get("model_type")
    if kind == "dinov2":
        return DINOV2
    if kind == "clip":
        return CLIP
    if kind == "siglip":
        # SigLIP 2 at fixed resolution has SigLIP's architecture; only the tokenizer tells.
        named = str(_read(folder, "tokenizer_config.json").get("tokenizer_class", ""))
        return SIGLIP2 if named.startswith(("Gemma", "Siglip2")) else SIGLIP
    if kind == "siglip2":
        raise EncoderError(
            f"{folder} is a SigLIP 2 checkpoint of variable resolution (NaFlex), which is not "
            "supported; take one of fixed resolution, as google/siglip2-base-patch16-224"
        )
    raise EncoderError(
        f"{folder} holds a checkpoint of type {kind!r}; supported are dinov2, clip and siglip "
        "(which includes SigLIP 2 of fixed resolution)"
    )


def spec_of(folder: Path) -> EncoderSpec:
    """Derive the spec of a local checkpoint from its own configuration.

    The encoder's name is the folder's absolute path, so that a collection finds it again.

    Raises:
        EncoderError: if something is missing, not supported, or contradicts itself.
    """
    family, config = family_of(folder), _read(folder, "config.json")
    vision = config.get("vision_config", config)
    preprocess = _preprocess(folder, family)
    if family is not DINOV2 and vision.get("image_size", 224) != preprocess.size:
        raise EncoderError(
            f"{folder}: the network takes {vision.get('image_size', 224)} px but its "
            f"preprocessor_config.json makes {preprocess.size} px; correct one of the two"
        )
    dim = config.get("projection_dim", 512) if family is CLIP else vision.get("hidden_size", 768)
    size_bytes = sum(path.stat().st_size for path in weight_files(folder))
    return EncoderSpec(
        name=str(folder),
        family=family.label,
        dim=int(dim),
        modalities=family.modalities,
        preprocess=preprocess,
        pooling=family.pooling,
        source=str(folder),
        revision="local",
        licence="unknown: see where the folder came from",
        size_mb=round(size_bytes / 1e6, 1),
        summary=f"{family.label} checkpoint in a local folder",
        prompt=family.prompt,
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in a fixed order.

    Raises:
        EncoderError: if there are none, or some that the index names are missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read(folder, index.name).get("weight_map", {}).values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise EncoderError(
            f"{folder} lacks {', '.join(missing) or 'weights'}; only safetensors are loaded "
            "(save_pretrained of a recent transformers writes them)"
        )
    return tuple(folder / name for name in names)


def weights_hash(files: Sequence[Path], cache_dir: Path) -> str:
    """BLAKE2b-128 over the contents of ``files``, as 32 hex digits.

    Reading gigabytes takes seconds, so a file's digest is kept under ``cache_dir`` and used again
    while its path, size and mtime stay the same.

    Raises:
        EncoderError: if a file's content does not fit the checksum that the hub gave for it.
    """
    digests = [_file_digest(path.resolve(), cache_dir / "digests") for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path, memory: Path) -> str:
    stat = path.stat()
    known = f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(errors="surrogateescape")
    note = memory / hashlib.blake2b(known, digest_size=16).hexdigest()
    if note.is_file() and re.fullmatch(r"[0-9a-f]{32}", text := note.read_text()):
        return text
    digest, checksum = hashlib.blake2b(digest_size=16), hashlib.sha256()
    # The hub's cache names a large file by the SHA-256 of its content.
    promised = path.name if re.fullmatch(r"[0-9a-f]{64}", path.name) else None
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            if promised:
                checksum.update(block)
    if promised and checksum.hexdigest() != promised:
        raise EncoderError(f"{path} is damaged (its SHA-256 differs); delete it and load again")
    try:
        put(note, digest.hexdigest().encode())
    except OSError as error:
        _log.warning("cannot remember the digest of %s: %s", path, error)
    return digest.hexdigest()


def _preprocess(folder: Path, family: Any) -> Preprocess:
    """Read ``preprocessor_config.json`` (or the nested form of newer checkpoints)."""
    raw = _read(folder, "preprocessor_config.json")
    raw = raw or _read(folder, "processor_config.json").get("image_processor", {})
    if not raw:
        raise EncoderError(f"{folder} has no preprocessor_config.json: copy it from the source")
    off = [step for step in ("do_resize", "do_rescale", "do_normalize") if not raw.get(step, True)]
    interpolation = _RESAMPLE.get(raw.get("resample", 3))
    size, crop = _edges(raw.get("size", 224)), _edges(raw.get("crop_size", 224))
    squash = "height" in size
    side = size.get("height") if squash else crop.get("height", crop.get("shortest_edge"))
    shortest = size.get("shortest_edge")
    cropped = bool(raw.get("do_center_crop", not squash))
    fits = (
        not off
        and interpolation is not None
        and side is not None
        and (size.get("width") == side if squash else crop.get("width", side) == side)
        and (not cropped if squash else cropped and shortest is not None and shortest >= side)
    )
    if not fits or interpolation is None or side is None:
        raise EncoderError(
            f"{folder}: its preprocessing is not supported (resize to a square, or by the shorter "
            "side with a centre crop, bilinear or bicubic, then normalise)"
        )
    return Preprocess(
        size=side,
        resize="squash" if squash else "shortest",
        resize_to=side if squash else shortest or side,
        interpolation=interpolation,
        mean=_triple(raw.get("image_mean", family.mean)),
        std=_triple(raw.get("image_std", family.std)),
        centre="round" if squash else "floor",
    )


def _edges(value: int | Mapping[str, int]) -> Mapping[str, int]:
    """Old checkpoints give one number, newer ones name the sides."""
    return {"shortest_edge": value} if isinstance(value, int) else value


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return (float(red), float(green), float(blue))


def _read(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of the folder; empty where it may be missing."""
    path = folder / name
    if not path.is_file() and name != "config.json":
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"{folder} is no checkpoint folder: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return loaded
