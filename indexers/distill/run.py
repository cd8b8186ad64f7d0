"""Distil a teacher into a small encoder of the user's own pictures."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from indexers.distill.finish import Finish
from indexers.distill.material import Material, gather
from indexers.distill.photos import preprocess_for
from indexers.distill.report import DistillInterrupted, DistillReport, Progress
from indexers.distill.texts import read_captions
from indexers.distill.workplace import Plan, Workplace
from indexers.interrupts import stoppable
from indexers.labels import Labels, labels_from
from indexers.sources import FolderSource
from retrieval.encoders import Encoder, TextEncoder, resolve
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
    epochs: int = EPOCHS,
    seed: int = 0,
    watch: Watch | None = None,
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
        epochs: passes over photos and texts. More is better, with less and less return.
        seed: of everything random.
        watch: called now and then with how far it is.
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
    encoder = resolve(teacher)
    has_text = isinstance(encoder, TextEncoder)
    if captions and not has_text:
        raise ModalityError(
            f"{encoder.spec.name} has no text side, so captions teach nothing: leave them out, or "
            "take a language-aligned teacher"
        )
    sentences = read_captions(captions) if captions else []
    facts = labels_from(labels)
    material = gather(_sources(data), facts, sentences, seed, with_texts=has_text)
    _require_torch()
    place = Workplace(Path(out).absolute(), _plan(encoder, material, epochs, seed))
    if report := place.report():
        return report
    from indexers.distill.training.stages import Stages, Stopped

    preprocess = preprocess_for(encoder.spec)
    with stoppable(stop) as wish:
        stages = Stages(encoder, material, place.training, watch or _silent, wish.is_set)
        try:
            trained = stages.train(preprocess, epochs, seed)
        except Stopped as stopped:
            raise DistillInterrupted(wish.signal or 0) from stopped
    report = Finish(trained, encoder, preprocess, material, stages.shelf, place, seed)()
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
