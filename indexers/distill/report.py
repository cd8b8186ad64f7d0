"""What a distillation says of itself, while it runs and afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from indexers.distill.agreement import Figures


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: ``teacher sees photos``, ``image side learns``, ``teacher reads texts``, ``text
            side learns`` or ``student is compared``.
        done: photos, steps or texts done.
        total: how many there are in this stage.
        loss: of the last steps, falling towards 0; None where nothing is trained.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class DistillReport:
    """What became of a distillation; all comparisons are on photos and texts held out.

    Attributes:
        out: the student's folder: a name for :func:`retrieval.encoders.load`.
        teacher: name of the teacher.
        photos: photos that were learnt from.
        held_out: photos that were not, and on which student and teacher were compared.
        failed: photos that could not be decoded or embedded.
        texts: texts that were learnt; 0 for a visual teacher.
        parameters: of the student's image side.
        precision: ``int8`` or ``fp32``, of the image side: int8 where that is faster and costs at
            most 0.01 of the cosine to the teacher.
        int8: its ``cosine_to_fp32``, and ``fp32_ms`` and ``int8_ms`` a forward pass.
        image: ``cosine`` and ``overlap_at_10`` between student and teacher.
        knn: ``student`` and ``teacher`` accuracy (k = 20, T = 0.07); None without labels.
        text: ``cosine``, ``overlap_at_10`` of the photos found, and with captions
            ``hit_rate_at_10_student`` and ``…_teacher``; None for a visual teacher.
        speed: milliseconds a picture on one thread; see
            :func:`indexers.distill.agreement.compare_speed`.
    """

    out: str
    teacher: str
    photos: int
    held_out: int
    failed: int
    texts: int
    parameters: int
    precision: str
    int8: Figures
    image: Figures
    knn: Figures | None
    text: Figures | None
    speed: Figures


class DistillInterrupted(KeyboardInterrupt):
    """The run was interrupted; what was done is on disk.

    Attributes:
        signal: number of the signal that interrupted.
    """

    def __init__(self, signal: int) -> None:
        """Tell how to go on."""
        super().__init__("interrupted; the same command goes on from here")
        self.signal = signal
