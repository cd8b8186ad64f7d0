"""Small students of large encoders, trained on the user's own pictures."""

from indexers.distill.report import DistillInterrupted, DistillReport, Progress
from indexers.distill.run import distill

__all__ = ["DistillInterrupted", "DistillReport", "Progress", "distill"]
