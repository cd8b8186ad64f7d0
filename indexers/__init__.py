"""The write path: from pictures to rows of a collection."""

from indexers.ingest import ingest
from indexers.report import IngestInterrupted, IngestReport

__all__ = ["IngestInterrupted", "IngestReport", "ingest"]
