"""Texts to learn from: captions, names of classes, and a large pile made of words."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.pocket.train.wordnet import WordNet

TEMPLATES = (
    "{}",
    "{}",
    "a {}",
    "the {}",
    "a photo of a {}",
    "a picture of a {}",
    "photo of {}",
    "one {} in the picture",
    "a close-up of a {}",
    "there is a {}",
)


def _word_lists() -> dict[str, list[str]]:
    """The lists of ``words.txt``: a name in brackets, then terms with semicolons between."""
    text = Path(__file__).with_name("words.txt").read_text(encoding="utf-8")
    sections = re.findall(r"\[(\w+)\]([^\[]+)", text)
    return {name: [" ".join(term.split()) for term in body.split(";")] for name, body in sections}


@dataclass(frozen=True, slots=True)
class Captions:
    """Flickr8k's photos of one split, and their captions.

    Attributes:
        images: file names, in order of first mention.
        texts: all captions.
        image_of: int64, the index into ``images`` of every caption.
    """

    images: tuple[str, ...]
    texts: tuple[str, ...]
    image_of: NDArray[np.int64]

    def by_image(self) -> NDArray[np.int64]:
        """Indices of five captions of every image, ``[images, 5]``; fewer are repeated."""
        of = [np.flatnonzero(self.image_of == i) for i in range(len(self.images))]
        return np.array([np.resize(captions, 5) for captions in of])


def read_captions(path: Path, split: str) -> Captions:
    """Read one split of ``captions.csv``: image, split, caption."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    images = tuple(dict.fromkeys(row["image"] for row in rows))
    index = {name: i for i, name in enumerate(images)}
    return Captions(
        images=images,
        texts=tuple(" ".join(row["caption"].rstrip(" .").split()) for row in rows),
        image_of=np.array([index[row["image"]] for row in rows]),
    )


def pile(
    captions: Sequence[str], wordnet: WordNet, vocabulary: Sequence[str], seed: int
) -> list[str]:
    """A pile of distinct texts for a student to imitate its teacher on.

    Captions and pieces of them, the words of the teacher's vocabulary, WordNet's names of
    things and their glosses, and combinations of all these by templates.

    Args:
        captions: captions of the training part.
        wordnet: the nouns.
        vocabulary: whole words that the teacher knows.
        seed: of all random choices.
    """
    rng = np.random.default_rng(seed)
    things, glosses = _things(wordnet)
    frequent = _frequent_nouns(captions, wordnet)
    lists = _word_lists()
    things_sold = lists["shop"]
    names = [*frequent, *things_sold, *things_sold]
    texts: list[str] = [*captions, *things, *vocabulary, *glosses, *things_sold, *frequent]
    texts += [_fill(rng, word) for word in (*things, *vocabulary, *things_sold * 4, *frequent * 2)]
    texts += [_pieces(rng, caption) for caption in captions]
    texts += [_combine(rng, names, things, lists) for _ in range(60_000)]
    return list(dict.fromkeys(text for text in texts if text))


def _things(wordnet: WordNet) -> tuple[list[str], list[str]]:
    """Names and glosses of everything physical, and of events such as sports."""
    roots = {wordnet.senses["physical entity"], wordnet.senses["activity"]}
    names: dict[str, None] = {}
    glosses: list[str] = []
    for synset in wordnet.nouns.values():
        if not any(up in roots for up, _ in wordnet.ancestors(synset.synset_id)):
            continue
        usual = [word for word in synset.lemmas if _is_plain(word)]
        names.update(dict.fromkeys(usual))
        if usual and len(synset.gloss) < 90:
            glosses.append(synset.gloss)
    return list(names), glosses


def _is_plain(word: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z' -]{2,}", word)) and word.count(" ") < 3


def _frequent_nouns(captions: Sequence[str], wordnet: WordNet) -> list[str]:
    counts = Counter(word for text in captions for word in re.findall("[a-z]+", text.lower()))
    return [word for word, n in counts.most_common() if n >= 3 and word in wordnet.senses]


def _fill(rng: np.random.Generator, word: str) -> str:
    text = TEMPLATES[2 + rng.integers(len(TEMPLATES) - 2)].format(word)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def _pieces(rng: np.random.Generator, caption: str) -> str:
    """A run of words out of a caption, as people type queries."""
    words = caption.lower().split()
    length = int(rng.integers(2, 6))
    start = int(rng.integers(max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])


def _combine(
    rng: np.random.Generator,
    names: Sequence[str],
    things: Sequence[str],
    lists: dict[str, list[str]],
) -> str:
    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def word(name: str) -> str:
        return pick(lists[name])

    noun = pick(names) if rng.random() < 0.8 else pick(things)
    kind = int(rng.integers(7))
    if kind == 0:
        return f"a {word('colours')} {noun}"
    if kind == 1:
        return f"{word('colours')} {noun}"
    if kind == 2:
        return f"a {word('adjectives')} {noun}"
    if kind == 3:
        return f"{noun} {word('places')}"
    if kind == 4:
        return f"a {noun} {word('relations')} {pick(names)}"
    if kind == 5:
        return f"{word('people')} with a {word('colours')} {noun}"
    return f"{word('people')} {word('places')} with {noun}"
