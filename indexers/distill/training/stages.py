"""The stages of training: the teacher answers, each side of the student imitates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.distill.material import Material, check_enough
from indexers.distill.photos import Shelf, teach_photos
from indexers.distill.report import Progress
from indexers.distill.texts import RULE, teach_texts, train_tokenizer
from indexers.distill.training.fit import Lesson, Schedule, fit
from indexers.distill.training.image import ImageStudent, pretrained
from indexers.distill.training.lessons import ImageLesson, TextLesson
from indexers.distill.training.text import TextStudent
from retrieval.encoders import Encoder, Preprocess, TextEncoder
from retrieval.encoders.pocket import weights
from retrieval.encoders.tokens import Tokenizer
from retrieval.encoders.towers import Tower, Towers
from retrieval.types import Embeddings

_PHOTO_BATCH, _PHOTO_RATE, _PHOTO_HEAD_RATE = 64, 1e-3, 5e-3
_TEXT_BATCH, _TEXT_RATE = 256, 1e-3


class Stopped(Exception):
    """Somebody wants to stop; what was done is on disk."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training made.

    Attributes:
        towers: the student's networks.
        files: their weights, safetensors.
        tokenizer: of the text side, if there is one.
        unseen: the teacher's embeddings of the texts that were held out.
    """

    towers: Towers
    files: tuple[Path, ...]
    tokenizer: Tokenizer | None = None
    unseen: Embeddings | None = None


class Stages:
    """One training, of which every stage goes on from what its files say is done.

    Attributes:
        shelf: pixels and the teacher's answers of the photos.
    """

    def __init__(
        self,
        teacher: Encoder,
        material: Material,
        folder: Path,
        watch: Callable[[Progress], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Train for ``teacher`` on ``material``, with files in ``folder``."""
        self.shelf = Shelf(folder, len(material.photos), teacher.spec.dim)
        self._teacher, self._material, self._folder = teacher, material, folder
        self._watch, self._stopped = watch, stopped

    def train(self, preprocess: Preprocess, epochs: int, seed: int) -> Trained:
        """Run all stages.

        Raises:
            Stopped: if somebody wants to stop.
            SourceError: if too few photos can be used.
        """
        image = self._image(preprocess, epochs, seed)
        spec, files = self._teacher.spec, [self._folder / "image.safetensors"]
        if not isinstance(self._teacher, TextEncoder):
            return Trained(Towers(image), tuple(files))
        learn, unseen = self._material.learn, self._material.unseen
        texts = [*learn, *(caption.text for caption in unseen)]
        rows = teach_texts(
            texts,
            self._teacher,
            self._folder,
            tell=self._teller("teacher reads texts"),
            stopped=self._stopped,
        )
        self._go_on()
        tokenizer, text = self._text(learn, rows[: len(learn)], epochs, seed)
        files.append(self._folder / "text.safetensors")
        towers = Towers(image, None, text, spec.logit_scale, spec.logit_bias)
        return Trained(towers, tuple(files), tokenizer, np.array(rows[len(learn) :]))

    def _image(self, preprocess: Preprocess, epochs: int, seed: int) -> ImageStudent:
        photos = self._material.photos
        teach_photos(
            photos,
            self.shelf,
            self._teacher,
            preprocess,
            seed,
            tell=self._teller("teacher sees photos"),
            stopped=self._stopped,
        )
        self._go_on()
        usable = self.shelf.usable()
        held_out = np.array([photo.held_out for photo in photos])
        learn = np.flatnonzero(usable & ~held_out)
        check_enough(len(learn), int((usable & held_out).sum()))
        student = pretrained(self._teacher.spec.dim, weights.load(), seed)
        lesson = ImageLesson(self.shelf, learn, preprocess)
        schedule = Schedule(epochs, _PHOTO_BATCH, _PHOTO_RATE, _PHOTO_HEAD_RATE, seed)
        self._fit("image", student, lesson, schedule)
        return student

    def _text(
        self, texts: list[str], rows: NDArray[np.float32], epochs: int, seed: int
    ) -> tuple[Tokenizer, TextStudent]:
        size = train_tokenizer(texts, self._folder)
        tokenizer = Tokenizer(self._folder, RULE, RULE.context)
        student = TextStudent(size, RULE.context, self._teacher.spec.dim, seed)
        lesson = TextLesson(tokenizer, texts, rows)
        schedule = Schedule(epochs, _TEXT_BATCH, _TEXT_RATE, _TEXT_RATE, seed)
        self._fit("text", student, lesson, schedule)
        return tokenizer, student

    def _fit(self, side: str, tower: Tower, lesson: Lesson, schedule: Schedule) -> None:
        checkpoint = self._folder / f"{side}.safetensors"
        tell = self._teller(f"{side} side learns")
        fit(tower, lesson, schedule, checkpoint, tell=tell, stopped=self._stopped)
        self._go_on()

    def _teller(self, stage: str) -> Callable[..., None]:
        return lambda done, total, loss=None: self._watch(Progress(stage, done, total, loss))

    def _go_on(self) -> None:
        if self._stopped():
            raise Stopped
