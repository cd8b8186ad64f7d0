"""The student's vocabulary: the part of the teacher's that the texts use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

MAX_TOKENS = 64
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def teacher_tokenizer(folder: Path) -> Tokenizer:
    """MiniLM's own tokenizer, without padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def cut(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> tuple[Tokenizer, list[int]]:
    """Keep single characters, and the pieces most used in ``texts``, up to ``size``.

    Returns:
        The tokenizer of the student, and the teacher's id of every piece that is left.
    """
    facts = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = facts["model"]["vocab"]
    counts = Counter(i for row in tokenizer.encode_batch(list(texts)) for i in row.ids)
    single = {
        i
        for piece, i in vocabulary.items()
        if len(piece.removeprefix("##")) == 1 and (counts[i] or piece[-1].isascii())
    }
    special = [vocabulary[piece] for piece in _SPECIAL]
    ranked = [i for i, _ in counts.most_common() if i not in single and i not in special]
    kept = special + sorted([*single, *ranked[: size - len(single) - len(special)]])
    new = {tokenizer.id_to_token(old): row for row, old in enumerate(kept)}
    facts["model"]["vocab"] = new
    facts["padding"] = None
    for token in facts["added_tokens"]:
        token["id"] = new.get(token["content"], -1)
    facts["added_tokens"] = [token for token in facts["added_tokens"] if token["id"] >= 0]
    for name, token in facts["post_processor"]["special_tokens"].items():
        token["ids"] = [new[name]]
    return Tokenizer.from_str(json.dumps(facts)), kept


def batches(rows: Sequence[Sequence[int]], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of indices whose texts are of similar length."""
    order = rng.permutation(len(rows))
    lengths = np.array([len(row) for row in rows])
    chunk = 50 * size
    parts = [order[i : i + chunk] for i in range(0, len(order), chunk)]
    parts = [part[np.argsort(lengths[part], kind="stable")] for part in parts]
    out = [part[i : i + size] for part in parts for i in range(0, len(part), size)]
    return [out[i] for i in rng.permutation(len(out))]


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids ``[n, longest]``, zero after the end, and the mask of real tokens."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask
