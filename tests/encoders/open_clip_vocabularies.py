"""Tiny tokenizers of the classes that open_clip's checkpoints name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as tf
from tokenizers import Tokenizer, models, normalizers, trainers

LINES = (
    "a photo of a small dog on a beach",
    "two red cars in front of a house",
    "a plate of food, a cup of coffee and a knife",
    "ein Foto eines kleinen Hundes am Strand",
    "une petite maison rouge près de la mer",
)


def write(folder: Path, kind: str) -> int:
    """Save a tokenizer as ``save_pretrained`` does, and say how many tokens it has."""
    tokenizer = _KINDS[kind]()
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _unigram(*special: str) -> list[tuple[str, float]]:
    """A SentencePiece vocabulary of ``LINES`` behind special tokens."""
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(special), unk_token="<unk>", show_progress=False
    )
    model = _trained(models.Unigram(), trainer)
    return [(piece, score) for piece, score in model["vocab"]]


def _bpe(*special: str) -> dict[str, Any]:
    """A BPE vocabulary of ``LINES`` behind special tokens, and its merges."""
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), show_progress=False)
    model = _trained(models.BPE(unk_token="<unk>"), trainer)
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def _trained(model: Any, trainer: Any) -> dict[str, Any]:
    inner = Tokenizer(model)
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.train_from_iterator([f"▁{line}" for line in LINES] * 4, trainer)
    found: dict[str, Any] = json.loads(inner.to_str())["model"]
    return found


def _t5() -> Any:
    tokenizer = tf.T5Tokenizer(vocab=_unigram("<pad>", "</s>", "<unk>"), extra_ids=0)
    tokenizer.pad_token = "</s>"
    return tokenizer


def _gemma() -> Any:
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    return tf.GemmaTokenizer(
        **_bpe("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters),
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
    )


def _xlm_roberta() -> Any:
    vocab = _unigram("<s>", "<pad>", "</s>", "<unk>")
    return tf.XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)])


def _nllb() -> Any:
    return tf.NllbTokenizer(**_bpe("<s>", "<pad>", "</s>", "<unk>"))


def _bert() -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz123"]
    words += ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"] + ["photo", "small", ","]
    return tf.BertTokenizer(vocab={word: at for at, word in enumerate(words)})


_KINDS: dict[str, Callable[[], Any]] = {
    "t5": _t5,
    "gemma": _gemma,
    "xlm_roberta": _xlm_roberta,
    "nllb": _nllb,
    "bert": _bert,
}
