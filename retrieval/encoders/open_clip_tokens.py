"""Tokenizers of open_clip's checkpoints, with the same ids as open_clip's own classes give."""

from __future__ import annotations

import gzip
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.encoders.checkpoints.files import read_json
from retrieval.encoders.checkpoints.packages import require
from retrieval.encoders.cleaning import Clean
from retrieval.encoders.tokens import TextRule, Tokenizer, opened
from retrieval.errors import EncoderError

_CONTEXT = 77
_MERGES = 49152 - 256 - 2
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_START, _END = "<start_of_text>", "<end_of_text>"
_CLEAN: dict[str, Clean] = {
    "lower": "web-lower",
    "whitespace": "web",
    "canonicalize": "web-canonical",
}


def tokenizer_of(folder: Path, text_cfg: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a checkpoint's ``text_cfg`` asks for.

    Args:
        folder: with ``tokenizer.json`` and ``tokenizer_config.json``, where the configuration
            names a tokenizer; otherwise it is CLIP's, whose vocabulary open_clip brings.
        text_cfg: of ``open_clip_config.json``.

    Raises:
        EncoderError: if files are missing, or something is asked for that is not known here.
        EncoderUnavailable: if open_clip is needed and not installed.
    """
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    named = bool(text_cfg.get("hf_tokenizer_name"))
    clean = options.pop("clean", "whitespace" if named else "lower")
    strip_end = options.pop("strip_sep_token", False)
    context = int(text_cfg.get("context_length", _CONTEXT))
    if clean not in _CLEAN or options or text_cfg.get("tokenizer_mode"):
        asked = text_cfg.get("tokenizer_mode") or ", ".join(options) or clean
        raise EncoderError(f"{folder}: its tokenizer is asked for {asked}, which is not known here")
    fill = needs_all(text_cfg)
    if not named:
        return _clip(TextRule(_START, _END, "!", context, fill, _CLEAN[clean]))
    inner = opened(folder)
    start, end = _around(folder, inner)
    # Some networks were trained with id 0 in the place of the end.
    end = inner.id_to_token(0) if strip_end else end
    rule = TextRule(start, end, _pad(folder), context, fill, _CLEAN[clean])
    return Tokenizer(folder, rule, context)


def needs_all(text_cfg: Mapping[str, Any]) -> bool:
    """Whether the network must see the padding up to its context to give the same numbers.

    It need not where no token looks at later ones and the last of the text is the embedding, nor
    where it is told what is padding (the text models of transformers).
    """
    if text_cfg.get("hf_model_name"):
        return False
    last = text_cfg.get("pool_type", "argmax") in ("argmax", "eos")
    alone = text_cfg.get("no_causal_mask") or text_cfg.get("embed_cls")
    return bool(alone) or not last


def _clip(rule: TextRule) -> Tokenizer:
    """CLIP's byte-level BPE from the merges that open_clip brings."""
    from tokenizers import AddedToken, Regex, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    with gzip.open(_vocabulary(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in map(str.split, lines)]
    # A letter for each byte: its own where it is visible, else one that is not taken.
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(at) for at in (*seen, *range(256, 512 - len(seen)))]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {word: at for at, word in enumerate([*words, _START, _END])}
    inner = Inner(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    inner.add_special_tokens([AddedToken(word, normalized=False) for word in (_START, _END)])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        inner.save(str(Path(folder) / "tokenizer.json"))
        return Tokenizer(Path(folder), rule, rule.context)


def _vocabulary() -> Path:
    """The file of merges in the installed package, which is not imported: that takes seconds."""
    require("open_clip")
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


def _around(folder: Path, inner: Any) -> tuple[str | None, str]:
    """The tokens that ``tokenizer.json`` puts before a text and behind it."""
    found = inner.encode("a")
    own = [at for at, added in enumerate(found.special_tokens_mask) if not added]
    before, behind = found.tokens[: own[0]], found.tokens[own[-1] + 1 :]
    if len(before) > 1 or len(behind) != 1:
        raise EncoderError(
            f"{folder}: its tokenizer puts {before} before a text and {behind} behind it; at most "
            "one and exactly one are known here"
        )
    return (before[0] if before else None), behind[0]


def _pad(folder: Path) -> str:
    """The token that fills short texts."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if pad := read_json(folder, name).get("pad_token"):
            return str(pad["content"] if isinstance(pad, Mapping) else pad)
    raise EncoderError(f"{folder}: its tokenizer_config.json names no pad_token; copy the source's")
