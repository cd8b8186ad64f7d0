"""A reader of WordNet 3.0's noun files, as Debian's ``wordnet-base`` installs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retrieval.errors import SourceError

_INSTANCES_AND_KINDS = ("@", "@i")


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: its words, its gloss without examples, and the ids of what it is a kind of."""

    synset_id: str
    lemmas: tuple[str, ...]
    gloss: str
    hypernyms: tuple[str, ...]


class WordNet:
    """All nouns, by their id: the eight digits of WordNet 3.0 after an ``n``."""

    def __init__(self, folder: Path) -> None:
        """Read the nouns.

        Args:
            folder: the folder that holds ``data.noun`` and ``cntlist.rev``.

        Raises:
            SourceError: if the file is not there.
        """
        self._folder = folder
        try:
            lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SourceError(
                f"WordNet is not in {folder}: {error}; fix: apt-get install wordnet-base"
            ) from error
        synsets = (_parse(line) for line in lines if not line.startswith(" "))
        self.nouns: dict[str, Synset] = {synset.synset_id: synset for synset in synsets}

    @cached_property
    def senses(self) -> dict[str, str]:
        """The most frequent noun sense of every word, as ``index.noun`` orders them."""
        first: dict[str, str] = {}
        for line in (self._folder / "index.noun").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                fields = line.split()
                count = int(fields[2])
                first[fields[0].replace("_", " ")] = "n" + fields[-count]
        return first

    def ancestors(self, synset_id: str) -> Iterator[tuple[str, int]]:
        """Everything that ``synset_id`` is a kind of, nearest first, with the steps to it."""
        seen = {synset_id}
        level, steps = [synset_id], 0
        while level:
            steps += 1
            above = (up for low in level for up in self.nouns[low].hypernyms)
            level = [up for up in dict.fromkeys(above) if up not in seen]
            seen.update(level)
            yield from ((up, steps) for up in level)


def _parse(line: str) -> Synset:
    """Read one line in the format of wndb(5WN)."""
    facts, _, gloss = line.partition("|")
    fields = facts.split()
    words = int(fields[3], 16)
    lemmas = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(words))
    pointers = fields[5 + 2 * words :]
    hypernyms = tuple(
        "n" + target
        for kind, target in zip(pointers[0::4], pointers[1::4], strict=False)
        if kind in _INSTANCES_AND_KINDS
    )
    return Synset("n" + fields[0], lemmas, gloss.split(";")[0].strip(), hypernyms)
