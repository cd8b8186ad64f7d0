"""What an ingest run says of itself, while it runs and afterwards."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class IngestReport:
    """What one run did.

    Attributes:
        added: images that are new in the collection.
        updated: images whose place, content, labels or spaces changed.
        skipped: images that were up to date.
        removed: images taken out because their file vanished (``prune``).
        failed: files that could not be read, decoded or encoded; each is in the failures table.
        encoded: images that went through an encoder.
        labelled: files for which the labels source knew something.
        seconds: wall time.
        dry_run: nothing was written; the numbers say what would have happened.
        interrupted: the run was stopped; what was done is written.
        cpu_seconds: CPU time of the working threads by stage: read, hash, decode, thumbnail,
            encode.
    """

    added: int = 0
    updated: int = 0
    skipped: int = 0
    removed: int = 0
    failed: int = 0
    encoded: int = 0
    labelled: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    interrupted: bool = False
    cpu_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def done(self) -> int:
        """Files dealt with so far."""
        return self.added + self.updated + self.skipped + self.failed


class IngestInterrupted(KeyboardInterrupt):
    """The run was interrupted after committing what was done.

    Attributes:
        report: what was done.
        signal: number of the signal that interrupted.
    """

    def __init__(self, report: IngestReport, signal: int) -> None:
        """Carry the report of what was done before the interruption."""
        super().__init__("interrupted; what was done is written, and the next run goes on from it")
        self.report = report
        self.signal = signal
