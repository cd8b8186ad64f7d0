"""A small tower that imitates the teacher's sentence embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders.pocket.train.bert import Shape, Tower
from retrieval.encoders.pocket.train.tokens import MAX_TOKENS, batches, pad

_log = logging.getLogger(__name__)

_LAYERS = (0, 2, 5)
_HIDDEN = 768
_RANK = 96


def embed(
    tower: Tower, rows: Sequence[Sequence[int]], batch_size: int = 128
) -> NDArray[np.float32]:
    """Unit sentence embeddings ``[n, width]`` of tokenised texts, computed in bfloat16."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    out = np.empty((len(rows), tower.shape.width), dtype=np.float32)
    tower.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            out[part] = F.normalize(tower(*pad([rows[i] for i in part])), dim=1).numpy()
    return out


def shrink(teacher: Tower, kept: Sequence[int]) -> Tower:
    """Make a student that starts from the teacher.

    It takes some layers, the strongest hidden units of each, and the best approximation of low
    rank of the word vectors that are kept.
    """
    student = Tower(
        Shape(
            vocabulary=len(kept),
            layers=len(_LAYERS),
            hidden=_HIDDEN,
            positions=MAX_TOKENS,
            rank=_RANK,
        )
    )
    old, new = teacher.state_dict(), student.state_dict()
    u, s, v = torch.linalg.svd(old["words.weight"][list(kept)], full_matrices=False)
    new["words.weight"] = u[:, :_RANK] * s[:_RANK].sqrt()
    new["widen.weight"] = (v[:_RANK] * s[:_RANK].sqrt()[:, None]).T.contiguous()
    new["positions"] = old["positions"][:MAX_TOKENS]
    for part in ("weight", "bias"):
        new[f"norm.{part}"] = old[f"norm.{part}"]
    for mine, theirs in enumerate(_LAYERS):
        layer = {
            name.removeprefix(f"layers.{theirs}."): value
            for name, value in old.items()
            if name.startswith(f"layers.{theirs}.")
        }
        strength = layer["up.weight"].norm(dim=1) * layer["down.weight"].norm(dim=0)
        units = strength.topk(_HIDDEN).indices.sort().values
        layer["up.weight"], layer["up.bias"] = layer["up.weight"][units], layer["up.bias"][units]
        layer["down.weight"] = layer["down.weight"][:, units]
        new |= {f"layers.{mine}.{name}": value for name, value in layer.items()}
    student.load_state_dict(new)
    return student


def distil(
    student: Tower,
    rows: Sequence[Sequence[int]],
    targets: NDArray[np.float32],
    *,
    epochs: int,
    seed: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> None:
    """Train ``student`` in place to point where the teacher points.

    Args:
        student: the tower to train.
        rows: tokenised texts.
        targets: the teacher's unit embeddings ``[n, width]`` of the same texts.
        epochs: passes over the texts.
        seed: of the order of texts.
        batch_size: texts a step.
        learning_rate: highest rate of the one-cycle schedule.
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = epochs * len(batches(rows, batch_size, np.random.default_rng(0)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps, pct_start=0.05)
    for epoch in range(epochs):
        student.train()
        total = 0.0
        parts = batches(rows, batch_size, rng)
        for part in parts:
            with torch.autocast("cpu", torch.bfloat16):
                mine = F.normalize(student(*pad([rows[i] for i in part])), dim=1)
            loss = imitation_loss(mine, torch.from_numpy(targets[part]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float((mine.detach() * torch.from_numpy(targets[part])).sum(1).mean())
        _log.info("distil epoch %d/%d: mean cosine %.4f", epoch + 1, epochs, total / len(parts))


def imitation_loss(mine: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine, and the batch's similarities beside the teacher's."""
    cosine = 1.0 - (mine * target).sum(1).mean()
    similarities = F.mse_loss(mine @ mine.T, target @ target.T)
    return cosine + similarities
