"""What the 1,000 ImageNet classes are called, and what they are kinds of.

``imagenet_synsets.txt`` lists the classes by WordNet id in the order of the network's logits; all
words come from WordNet.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.encoders.pocket.train.wordnet import WordNet

_LARGEST_GROUP = 450


@dataclass(frozen=True, slots=True)
class ClassTexts:
    """Texts and the classes each is true of.

    Attributes:
        texts: names of classes, their synonyms, and names of what they are kinds of.
        truth: bool ``[texts, 1000]``.
        own: bool ``[texts]``, true for names of a class itself.
    """

    texts: tuple[str, ...]
    truth: np.ndarray
    own: np.ndarray


def class_ids() -> list[str]:
    """WordNet 3.0 ids of the classes, in the order of the network's logits."""
    path = Path(__file__).with_name("imagenet_synsets.txt")
    return path.read_text(encoding="ascii").split()


def class_texts(wordnet: WordNet) -> ClassTexts:
    """Collect the names of all classes and of everything above them up to very general things."""
    classes: dict[str, set[int]] = defaultdict(set)
    own: set[str] = set()
    for index, synset_id in enumerate(class_ids()):
        for name in wordnet.nouns[synset_id].lemmas:
            classes[name].add(index)
            own.add(name)
        for above, _ in wordnet.ancestors(synset_id):
            for name in wordnet.nouns[above].lemmas:
                classes[name].add(index)
    kept = [name for name, members in classes.items() if len(members) <= _LARGEST_GROUP]
    truth = np.zeros((len(kept), 1000), dtype=bool)
    for row, name in enumerate(kept):
        truth[row, list(classes[name])] = True
    return ClassTexts(tuple(kept), truth, np.array([name in own for name in kept]))
