"""Tiny tokenizers in the forms that published checkpoints have."""

from __future__ import annotations

import json
from pathlib import Path

import transformers as tf
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SENTENCES = (
    "a photo of a small dog on a beach",
    "two red cars in front of a house",
    "a plate of food, a cup of coffee and a knife",
    "people playing football in the rain",
)
CHINESE = ("沙滩上的小狗的照片", "房子前面的两辆红色汽车")


def bpe() -> tf.CLIPTokenizer:
    """CLIP's byte-level BPE."""
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


def unigram() -> Tokenizer:
    """SigLIP's, which cleans texts as the published one does."""
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
    inner.train_from_iterator(SENTENCES * 4, _unigram_trainer("<unk>", "</s>"))
    return inner


def gemma() -> Tokenizer:
    """SigLIP 2's: BPE with bytes as fallback, in Gemma's form."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    inner.train_from_iterator(SENTENCES * 4, trainer)
    return inner


def xlm() -> tf.XLMRobertaTokenizer:
    """XLM-R's Unigram."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.train_from_iterator(SENTENCES * 4, _unigram_trainer("<s>", "<pad>", "</s>", "<unk>"))
    pieces = json.loads(inner.to_str())["model"]["vocab"]
    return tf.XLMRobertaTokenizer(vocab=[(piece, score) for piece, score in pieces])


def wordpiece() -> tf.BertTokenizer:
    """BERT's WordPiece, with Chinese characters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join((*CHINESE, *SENTENCES))) - {" "})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), "dog", "##ed"]
    return tf.BertTokenizer(vocab={piece: at for at, piece in enumerate(pieces)})


def write(folder: Path, inner: Tokenizer, tokenizer_class: str, **special: str) -> Path:
    """Save a tokenizer for which the library has no class that saves it."""
    inner.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": tokenizer_class, "model_max_length": 64}
    facts |= {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder


def _unigram_trainer(*special: str) -> trainers.UnigramTrainer:
    return trainers.UnigramTrainer(
        vocab_size=80, special_tokens=list(special), unk_token="<unk>", show_progress=False
    )
