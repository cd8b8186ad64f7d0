"""Training of the joint space: heads on a frozen teacher first, then the small tower itself."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.encoders.pocket.train.bert import Tower
from retrieval.encoders.pocket.train.heads import (
    ImageHead,
    Photos,
    Prototypes,
    TextHead,
    contrast,
    group_names,
    soft_labels,
)
from retrieval.encoders.pocket.train.imagenet import ClassTexts
from retrieval.encoders.pocket.train.tokens import pad

_log = logging.getLogger(__name__)

_LABEL_WEIGHT = 0.1
_BATCH_SIZE = 1024
_CLASS_TEXTS = 384

EncodeTexts = Callable[[NDArray[np.int64]], Tensor]
"""Unit vectors of the texts at these indices of one long list: captions, then class texts."""


@dataclass
class Lessons:
    """What there is to learn.

    Attributes:
        photos: features of the training photos.
        captions_of: int64 ``[photos, 5]``, indices of the captions of every captioned photo.
        train: indices of photos to train on.
        validation: indices of photos to stop by.
        classes: names of classes and of groups of them; text ``i`` has the index
            ``class_offset + i``.
        class_offset: number of captions.
        prototypes: imagined photos of the classes.
    """

    photos: Photos
    captions_of: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: ClassTexts
    class_offset: int
    prototypes: Prototypes


def hit_rates(images: Tensor, texts: Tensor, truth: NDArray[np.int64]) -> tuple[float, ...]:
    """Share of texts whose own image is among the best 1, 5, 10 of ``images``."""
    scores = texts @ images.T
    own = scores[torch.arange(len(truth)), torch.as_tensor(truth)]
    ranks = (scores > own[:, None]).sum(1)
    return tuple(float((ranks < k).float().mean()) for k in (1, 5, 10))


def fit(
    image_head: ImageHead,
    modules: Sequence[nn.Module],
    encode: EncodeTexts,
    lessons: Lessons,
    *,
    epochs: int,
    rates: Sequence[float],
    seed: int,
    batch_size: int = _BATCH_SIZE,
    extra: Callable[[], Tensor] | None = None,
) -> None:
    """Train in place, and end with the weights of the epoch that validated best.

    Args:
        image_head: the image side.
        modules: the text side's trainable parts.
        encode: the text side.
        lessons: what to learn.
        epochs: passes over the photos.
        rates: highest learning rate of the image head and of every module.
        seed: of the order of photos, captions and views.
        batch_size: photos a step.
        extra: one more loss for every step.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = [image_head, *modules]
    groups = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in zip(parts, rates, strict=True)
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.1)
    steps = len(lessons.train) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, list(rates), total_steps=epochs * steps, pct_start=0.1
    )
    best, kept = -1.0, [copy.deepcopy(part.state_dict()) for part in parts]
    for epoch in range(epochs):
        for part in parts:
            part.train()
        order = rng.permutation(lessons.train)
        for step in range(steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            loss = _loss(image_head, encode, lessons, chosen, rng, generator)
            if extra is not None:
                loss = loss + extra()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch % 5 == 4 or epoch == epochs - 1 or extra is not None:
            rates_now = validate(image_head, modules, encode, lessons)
            _log.info(
                "epoch %d/%d: validation hit rates %.4f %.4f %.4f", epoch + 1, epochs, *rates_now
            )
            if sum(rates_now) > best:
                best = sum(rates_now)
                kept = [copy.deepcopy(part.state_dict()) for part in parts]
    for part, state in zip(parts, kept, strict=True):
        part.load_state_dict(state)
        part.eval()


def validate(
    image_head: ImageHead, modules: Sequence[nn.Module], encode: EncodeTexts, lessons: Lessons
) -> tuple[float, ...]:
    """Hit rates at 1, 5 and 10 among the validation photos."""
    for part in (image_head, *modules):
        part.eval()
    photos = lessons.validation
    captions = lessons.captions_of[photos].reshape(-1)
    truth = np.repeat(np.arange(len(photos)), lessons.captions_of.shape[1])
    with torch.no_grad():
        images = image_head(lessons.photos.captioned[0][photos])
        texts = torch.cat([encode(part) for part in np.array_split(captions, 8)])
    return hit_rates(images, texts, truth)


def _loss(
    image_head: ImageHead,
    encode: EncodeTexts,
    lessons: Lessons,
    chosen: NDArray[np.int64],
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Tensor:
    views = lessons.photos.captioned
    features = views[rng.integers(len(views))][chosen]
    column = rng.integers(lessons.captions_of.shape[1], size=len(chosen))
    captions = lessons.captions_of[chosen, column]
    others = lessons.photos.others
    features = torch.cat([features, others[rng.integers(len(others), size=len(chosen) // 4)]])
    groups = rng.integers(len(lessons.classes.texts), size=_CLASS_TEXTS)
    names = _one_name_each(lessons.classes, rng)
    pick = rng.permutation(len(names))[:_CLASS_TEXTS]

    images = image_head(features)
    imagined = image_head(lessons.prototypes.sample(generator))
    texts = encode(np.concatenate([captions, lessons.class_offset + groups]))
    of_groups = texts[len(captions) :]
    truth = torch.from_numpy(lessons.classes.truth[groups]).float()
    loss = contrast(images[: len(chosen)], texts[: len(captions)])
    loss = loss + _LABEL_WEIGHT * group_names(
        of_groups, imagined, truth / truth.sum(1, keepdim=True)
    )
    of_names = encode(lessons.class_offset + names[pick])
    logits = features[:, -len(names) :][:, pick]
    loss = loss + _LABEL_WEIGHT * soft_labels(images, of_names, logits)
    return loss + _LABEL_WEIGHT * contrast(imagined[pick], of_names)


def _one_name_each(classes: ClassTexts, rng: np.random.Generator) -> NDArray[np.int64]:
    """Index of one random own name of every class."""
    noise = rng.random(len(classes.texts))
    candidates = np.where(classes.truth & classes.own[:, None], noise[:, None], -1.0)
    return np.asarray(candidates.argmax(axis=0))


def frozen_texts(head: TextHead, embeddings: NDArray[np.float32]) -> EncodeTexts:
    """The text side that puts a head on the teacher's embeddings."""
    table = torch.from_numpy(embeddings)
    return lambda indices: head(table[indices])


def student_texts(tower: Tower, head: TextHead, rows: Sequence[Sequence[int]]) -> EncodeTexts:
    """The text side of the small tower."""

    def encode(indices: NDArray[np.int64]) -> Tensor:
        order = np.argsort([len(rows[i]) for i in indices], kind="stable")
        parts = []
        with torch.autocast("cpu", torch.bfloat16):
            for part in np.array_split(order, max(1, len(order) // 128)):
                parts.append(tower(*pad([rows[indices[i]] for i in part]), dropout=0.1))
        back = torch.from_numpy(np.argsort(order))
        return head(torch.cat(parts)[back])

    return encode
