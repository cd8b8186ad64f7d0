"""Distil a teacher into a small encoder of the user's own pictures."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from indexers.distill.finish import Finish
from indexers.distill.material import Material, gather
from indexers.distill.photos import preprocess_for
from indexers.distill.report import DistillInterrupted, DistillReport, Progress
from indexers.distill.texts import read_captions
from indexers.distill.workplace import Plan, Workplace
from indexers.interrupts import stoppable
from indexers.labels import Labels, labels_from
from indexers.sample import sample_pictures
from indexers.sources import FolderSource
from indexers.spaces import Loader
from retrieval.encoders import Encoder, TextEncoder
from retrieval.errors import InstallError, ModalityError

Source = str | os.PathLike[str] | FolderSource
Watch = Callable[[Progress], None]

EPOCHS = 8


def distill(
    teacher: str | Encoder,
    data: Source | Sequence[Source],
    out: str | os.PathLike[str],
    *,
    labels: str | Labels | None = None,
    captions: str | os.PathLike[str] | None = None,
    precision: str = "fp32",
    epochs: int = EPOCHS,
    seed: int = 0,
    watch: Watch | None = None,
    tell: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> DistillReport:
    """Train a small student to put pictures, and texts, where ``teacher`` puts them.

    Interrupted or killed, the same call goes on where it stopped and ends with the same student.
    Called again after that, it gives the report again.

    Args:
        teacher: any encoder, or its name.
        data: folder, image file, or several of them: pictures of the kind that will be indexed.
        out: the student's folder, which then is its name for :func:`retrieval.encoders.load`.
        labels: ``folder``, ``FILE.csv:COLUMN``, or an object with facts by path; used to compare
            accuracies, and their ``split`` to hold photos out.
        captions: CSV file with the columns ``file``, ``caption`` and maybe ``split``, for a
            language-aligned teacher: its text side learns on them, beside plain words.
        precision: how the teacher runs, see :func:`retrieval.encoders.load`.
        epochs: passes over photos and texts. More is better, with less and less return.
        seed: of everything random.
        watch: called now and then with how far it is.
        tell: called with a line about what ``precision`` chose.
        stop: set it from another thread to end the run after what is under way.

    Returns:
        How far the student agrees with its teacher on photos and texts that it has not seen.

    Raises:
        InstallError: if torch is missing.
        SourceError: if data, labels or captions cannot be read or are too few.
        EncoderError: if the teacher cannot be loaded, or ``out`` holds something else.
        ModalityError: if captions are given to a teacher without a text side.
        DistillInterrupted: on SIGINT or SIGTERM, or if ``stop`` was set.
        OSError: if there is no room for what training needs.
    """
    sources = _sources(data)
    encoder = Loader(precision, partial(sample_pictures, sources), tell)(teacher)
    has_text = isinstance(encoder, TextEncoder)
    if captions and not has_text:
        raise ModalityError(
            f"{encoder.spec.name} has no text side, so captions teach nothing: leave them out, or "
            "take a language-aligned teacher"
        )
    sentences = read_captions(captions) if captions else []
    material = gather(sources, labels_from(labels), sentences, seed, with_texts=has_text)
    _require_torch()
    place = Workplace(Path(out).absolute(), _plan(encoder, material, epochs, seed))
    if report := place.report():
        return report
    return _make(encoder, material, place, epochs, seed, watch or _silent, stop)


def _make(
    teacher: Encoder,
    material: Material,
    place: Workplace,
    epochs: int,
    seed: int,
    watch: Watch,
    stop: threading.Event | None,
) -> DistillReport:
    """Train a student and see it into its folder."""
    from indexers.distill.training.stages import Stages, Stopped

    preprocess = preprocess_for(teacher.spec)
    with stoppable(stop) as wish:
        stages = Stages(teacher, material, place.training, watch, wish.is_set)
        try:
            trained = stages.train(preprocess, epochs, seed)
        except Stopped as stopped:
            raise DistillInterrupted(wish.signal or 0) from stopped
    finish = Finish(trained, teacher, preprocess, material, stages.shelf, place, seed, watch)
    report = finish()
    place.clear()
    return report


def _silent(progress: Progress) -> None:
    """What watches when nobody does."""


def _require_torch() -> None:
    from retrieval.encoders.checkpoints.packages import missing

    if absent := missing("torch"):
        raise InstallError(
            f"distilling trains a network and needs {' and '.join(absent)}: "
            f"pip install {' '.join(absent)}. What it makes runs without."
        )


def _sources(data: Source | Sequence[Source]) -> list[FolderSource]:
    given = [data] if isinstance(data, str | os.PathLike | FolderSource) else data
    return [each if isinstance(each, FolderSource) else FolderSource(each) for each in given]


def _plan(teacher: Encoder, material: Material, epochs: int, seed: int) -> Plan:
    """Everything that decides how the student turns out."""
    facts = "\n".join(map(repr, (*material.photos, *material.learn, *material.unseen)))
    digest = hashlib.blake2b(facts.encode("utf-8", "surrogateescape"), digest_size=16)
    return {
        "teacher": teacher.spec.name,
        "weights": teacher.weights_hash,
        "data": digest.hexdigest(),
        "epochs": epochs,
        "seed": seed,
    }
