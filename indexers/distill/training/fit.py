"""One training loop for both sides of a student: seeded, and resumable to the step."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders.files import put
from retrieval.encoders.towers import Tower

_WARM_UP = 0.1
_SAVE_EVERY_S = 30.0
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h

Tell = Callable[[int, int, float], None]
"""Called after every step: steps done, steps in all, loss of the last ones."""


class Lesson(Protocol):
    """Inputs, and where the teacher puts them."""

    def __len__(self) -> int:
        """How many inputs there are."""
        ...

    def order(self, chance: np.random.Generator, size: int) -> NDArray[np.int64]:
        """All inputs once, in the order of one epoch; each ``size`` of them become a batch."""
        ...

    def batch(
        self, rows: NDArray[np.int64], chance: np.random.Generator, device: torch.device
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Arguments of the tower for some inputs, and the teacher's unit rows ``[n, dim]``."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the lesson.
        batch_size: inputs a step.
        rate: highest learning rate; it rises over the first tenth and falls to zero (cosine).
        head_rate: the same for the tower's ``head``, which may know less than the rest.
        seed: of the order of inputs and of everything the lesson leaves to chance.
    """

    epochs: int
    batch_size: int
    rate: float
    head_rate: float
    seed: int


def fit(
    tower: Tower,
    lesson: Lesson,
    schedule: Schedule,
    checkpoint: Path,
    *,
    tell: Tell,
    stopped: Callable[[], bool],
) -> None:
    """Train ``tower`` in place to point where the teacher points.

    The state is written to ``checkpoint`` now and then, at the end and when stopped; a run that
    finds one goes on from it and ends as one that was never interrupted. On CUDA where there is
    one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _hold_memory()
    tower.to(device, memory_format=torch.channels_last).train()
    optimiser = _optimiser(tower, schedule)
    size = min(schedule.batch_size, len(lesson))
    steps = len(lesson) // size
    total = schedule.epochs * steps
    done = _restore(checkpoint, tower, optimiser)
    saved, mean_loss, order, ordered = time.monotonic(), math.nan, np.empty(0, np.int64), -1
    while done < total and not stopped():
        epoch, at = divmod(done, steps)
        if epoch != ordered:
            order = lesson.order(np.random.default_rng([schedule.seed, epoch]), size)
            ordered = epoch
        chance = np.random.default_rng([schedule.seed, epoch, at])
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * _warmth(done / total)
        rows = order[at * size : (at + 1) * size]
        loss = _step(tower, optimiser, *lesson.batch(rows, chance, device))
        done += 1
        mean_loss = loss if math.isnan(mean_loss) else 0.95 * mean_loss + 0.05 * loss
        tell(done, total, mean_loss)
        if time.monotonic() - saved > _SAVE_EVERY_S:
            _keep(checkpoint, tower, optimiser, done)
            saved = time.monotonic()
    _keep(checkpoint, tower, optimiser, done)
    tower.to("cpu").eval()


def imitation_loss(mine: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine, and the batch's similarities beside the teacher's.

    The second is relational distillation (Park et al., "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068) of all pairs: neighbours count, not places alone.

    Args:
        mine: ``[n, dim]``, unit rows.
        target: ``[n, dim]``, unit rows.
    """
    return 1.0 - (mine * target).sum(1).mean() + F.mse_loss(mine @ mine.T, target @ target.T)


def _optimiser(tower: Tower, schedule: Schedule) -> torch.optim.AdamW:
    head = list(tower.head.parameters())
    known = {id(weight) for weight in head}
    rest = [weight for weight in tower.parameters() if id(weight) not in known]
    groups = [
        {"params": rest, "initial_lr": schedule.rate},
        {"params": head, "initial_lr": schedule.head_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def _step(
    tower: Tower, optimiser: torch.optim.Optimizer, inputs: tuple[Tensor, ...], target: Tensor
) -> float:
    half = torch.autocast("cuda", torch.bfloat16, enabled=target.is_cuda)
    with half:
        rows = tower(*inputs)
    loss = imitation_loss(F.normalize(rows.float(), dim=1), target)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _warmth(done: float) -> float:
    """Share of the highest learning rate after a share of the training."""
    if done < _WARM_UP:
        return (done + 1e-3) / (_WARM_UP + 1e-3)
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _keep(path: Path, tower: Tower, optimiser: torch.optim.Optimizer, done: int) -> None:
    tensors = {f"tower.{name}": value for name, value in tower.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    put(path, save(whole, metadata={"steps": str(done)}))


def _restore(path: Path, tower: Tower, optimiser: torch.optim.Optimizer) -> int:
    """Steps done according to ``path``, whose state is taken over; 0 without one."""
    if not path.is_file():
        return 0
    weights: dict[str, Tensor] = {}
    states: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        done = int(file.metadata()["steps"])
        for key in file.keys():  # noqa: SIM118  (not a dict)
            part, _, name = key.partition(".")
            if part == "tower":
                weights[name] = file.get_tensor(key)
            else:
                number, _, name = name.partition(".")
                states.setdefault(int(number), {})[name] = file.get_tensor(key)
    tower.load_state_dict(weights)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return done


def _hold_memory() -> None:
    """Have the C library keep what it frees: giving it back costs a third of every step's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc
        for option, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(option, value)
