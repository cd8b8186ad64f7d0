"""How a text becomes a text network's input: explicit, equal to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.cleaning import Clean, cleaned
from retrieval.errors import EncoderError

FILE = "tokenizer.json"

# Who in transformers turns an older vocabulary into a tokenizer.json; SigLIP's own class does not.
_WRITERS = {
    "merges.txt": "CLIP",
    "sentencepiece.bpe.model": "XLMRoberta",
    "spiece.model": "T5",
    "vocab.txt": "Bert",
}


@dataclass(frozen=True, slots=True)
class TextRule:
    """What a family's text side expects around the tokens.

    Attributes:
        start: token before the text, or None.
        end: token after the text.
        pad: token that fills short texts.
        context: most tokens of a text, start and end included; longer ones are cut.
        fill: always pad to ``context`` (SigLIP was trained so), instead of to the longest.
        clean: what is done to the text first; see :func:`~retrieval.encoders.cleaning.cleaned`.
    """

    start: str | None
    end: str
    pad: str
    context: int
    fill: bool = False
    clean: Clean = "none"


class Tokenizer:
    """Texts to token ids, with one family's rule and one checkpoint's vocabulary.

    Attributes:
        rule: the family's rule, with as many tokens as the checkpoint's network takes.
    """

    def __init__(self, folder: Path, rule: TextRule, context: int) -> None:
        """Read ``tokenizer.json`` of a checkpoint.

        Args:
            folder: the checkpoint.
            rule: the family's rule.
            context: positions that the network has; the shorter of it and the rule's counts.

        Raises:
            EncoderError: if the file is missing, damaged or of another family.
        """
        self._tokenizer = opened(folder)
        path = folder / FILE
        self.rule = replace(rule, context=min(rule.context, context))
        self._start = [] if rule.start is None else [self._id(rule.start, path)]
        self._end = [self._id(rule.end, path)]
        self._pad = self._id(rule.pad, path)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, start and end included, not padded."""
        room = self.rule.context - len(self._start) - len(self._end)
        # A lone surrogate, as a file name may carry, has no UTF-8 form for the tokenizer.
        clean = [
            cleaned(text.encode("utf-8", "replace").decode("utf-8"), self.rule.clean)
            for text in texts
        ]
        return [
            self._start + encoding.ids[:room] + self._end
            for encoding in self._tokenizer.encode_batch(clean, add_special_tokens=False)
        ]

    def padded(self, rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        """``ids`` and ``mask`` (1 where a token counts), int64 ``[n, length]``, padded right."""
        length = self.rule.context if self.rule.fill else max(map(len, rows), default=0)
        ids = np.full((len(rows), length), self._pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        return {"ids": ids, "mask": mask}

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, from which ``rule`` makes this tokenizer again."""
        self._tokenizer.save(str(folder / FILE))

    def _id(self, token: str, path: Path) -> int:
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise EncoderError(f"{path} does not know {token!r}: it belongs to another family")
        return found


def opened(folder: Path) -> Any:
    """The ``tokenizers.Tokenizer`` of a checkpoint, which neither cuts nor pads.

    Raises:
        EncoderError: if ``tokenizer.json`` is missing or damaged.
    """
    import tokenizers

    path = folder / FILE
    if not path.is_file():
        writer = next(
            (kind for file, kind in _WRITERS.items() if (folder / file).is_file()), "Auto"
        )
        raise EncoderError(
            f"{folder} has no {FILE}, which its text side needs: copy it from the source, or let "
            f"transformers write one with {writer}Tokenizer.from_pretrained(folder)"
            ".save_pretrained(folder)"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise EncoderError(f"{path} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
