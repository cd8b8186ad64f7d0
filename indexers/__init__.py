"""The write path: from pictures to rows of a collection."""

from indexers.report import IngestInterrupted, IngestReport
from indexers.run import ingest

__all__ = ["IngestInterrupted", "IngestReport", "ingest"]
