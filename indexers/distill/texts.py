"""What the text side learns from: the user's captions and labels, and plain English words."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.distill.photos import Tell, array_on_disk, in_parallel
from retrieval.encoders import TextEncoder
from retrieval.encoders.files import put
from retrieval.encoders.pocket import artefact
from retrieval.encoders.tokens import TextRule
from retrieval.errors import SourceError

RULE = TextRule(start=None, end="<end>", pad="<pad>", context=64)

_VOCABULARY = 8_000
_PAIRS = 20_000
_CHUNK = 256
_TEMPLATES = (
    "a {}",
    "the {}",
    "a photo of a {}",
    "a picture of {}",
    "{} in the picture",
    "a close-up of a {}",
    "there is a {}",
)
_JOINTS = ("{} {}", "a {} {}", "a {} and a {}", "a {} on a {}", "a {} next to a {}", "{} with {}")


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about one photo.

    Attributes:
        path: the photo it is about, as its row says: absolute.
        text: the sentence.
        held_out: whether its row's ``split`` is something else than ``train``.
    """

    path: str
    text: str
    held_out: bool


def read_captions(path: str | os.PathLike[str]) -> list[Caption]:
    """Read a CSV file with the columns ``file`` (or ``image``), ``caption`` and maybe ``split``.

    Raises:
        SourceError: if it cannot be read, lacks a column, or holds no caption.
    """
    name = os.fspath(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            photo = next((column for column in ("file", "image") if column in columns), None)
            if photo is None or "caption" not in columns:
                raise SourceError(
                    f"{name} needs the columns 'file' and 'caption'; it has: {', '.join(columns)}"
                )
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"the captions file {name!r} cannot be read: {error}") from error
    folder = os.path.dirname(os.path.realpath(path))
    captions = [
        Caption(
            path=os.path.normpath(os.path.join(folder, row[photo] or "")),
            text=" ".join((row["caption"] or "").split()),
            held_out=(row.get("split") or "train") != "train",
        )
        for row in rows
    ]
    captions = [caption for caption in captions if caption.text]
    if not captions:
        raise SourceError(f"the captions file {name!r} holds no caption")
    return captions


def texts_to_learn(captions: Sequence[str], labels: Iterable[str], seed: int) -> list[str]:
    """Distinct texts for a student to imitate its teacher on.

    Captions and runs of words out of them, as people type queries; labels; the English words of
    the pocket tokenizer; and all these in templates and pairs.

    Args:
        captions: sentences about photos that are not held out.
        labels: names of classes.
        seed: of all random choices.
    """
    chance = np.random.default_rng(seed)
    names = sorted({label.lower() for label in labels})
    words = [*names, *_english()]
    spoken = sorted({word for text in captions for word in re.findall(r"[^\W\d_]+", text.lower())})
    nouns = [*names, *spoken] or words

    def pick(choices: Sequence[str]) -> str:
        return choices[int(chance.integers(len(choices)))]

    texts = [*captions, *(_piece(text, chance) for text in captions), *words, *spoken]
    texts += [pick(_TEMPLATES).format(word) for word in [*words, *spoken, *names * 10]]
    texts += [pick(_JOINTS).format(pick(words), pick(nouns)) for _ in range(_PAIRS)]
    return list(dict.fromkeys(texts))


def train_tokenizer(texts: Sequence[str], folder: Path) -> int:
    """Write ``tokenizer.json``, if it is not there: byte-level BPE of lower-cased text.

    No text is unknown to it.

    Returns:
        How many token ids there are.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    path = folder / "tokenizer.json"
    if path.exists():
        known: int = Tokenizer.from_file(str(path)).get_vocab_size()
        return known
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[RULE.pad, RULE.end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    put(path, tokenizer.to_str().encode())
    size: int = tokenizer.get_vocab_size()
    return size


def teach_texts(
    texts: Sequence[str],
    teacher: TextEncoder,
    folder: Path,
    *,
    tell: Tell,
    stopped: Callable[[], bool],
) -> NDArray[np.float32]:
    """The teacher's embeddings ``[n, dim]`` of ``texts``, from disk where they are known already.

    Rows that a stopped run left out are zero.
    """
    shape = (len(texts), teacher.spec.dim)
    rows: NDArray[np.float32] = array_on_disk(folder / "texts.npy", np.float32, shape)

    def work(chunk: Sequence[int]) -> None:
        rows[list(chunk)] = teacher.encode_texts([texts[at] for at in chunk])

    missing = [int(at) for at in np.flatnonzero(~rows.any(axis=1))]
    in_parallel(missing, _CHUNK, work, len(texts), tell=tell, stopped=stopped)
    return rows


def _english() -> list[str]:
    """The whole words among the pieces of the pocket tokenizer: 12,000 that people use."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(artefact.TOKENIZER)).get_vocab()
    return sorted(word for word in vocabulary if re.fullmatch("[a-z]{3,}", word))


def _piece(text: str, chance: np.random.Generator) -> str:
    """A run of two to five words out of a text."""
    words = text.split()
    length = int(chance.integers(2, 6))
    start = int(chance.integers(max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])
