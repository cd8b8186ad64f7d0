"""The part of ingestion that one thread does: decide what each file means, and commit it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from indexers.known import Known, KnownImages
from indexers.labels import Labels
from indexers.prepare import Chunk, Failed, Outcome, Prepared, SameContent
from indexers.report import IngestReport
from indexers.rows import failure_table, image_table
from indexers.sources import FoundFile
from retrieval.store import Store

_COMMIT_SECONDS = 10.0


class Writer:
    """Turns outcomes into rows and commits them in batches, in the order they come.

    Every commit is whole, so that a run that is killed leaves complete rows only, and the next
    run goes on from them.
    """

    def __init__(
        self,
        store: Store | None,
        known: KnownImages,
        labels: Labels | None,
        report: IngestReport,
        commit_rows: int,
    ) -> None:
        """Write to ``store`` (None for a dry run) and count into ``report``."""
        self._commit_rows = commit_rows
        self._store = store
        self._known = known
        self._labels = labels
        self._report = report
        self._inserts: list[dict[str, Any]] = []
        self._updates: list[dict[str, Any]] = []
        self._copies: list[tuple[int, dict[str, Any]]] = []
        self._failures: list[Failed] = []
        self._last_commit = time.monotonic()
        self.failed_uris: set[str] = set()

    def take(self, chunk: Chunk) -> None:
        """Count and queue what became of one chunk; commits when enough has gathered."""
        for stage, seconds in chunk.cpu_seconds.items():
            self._report.cpu_seconds[stage] += seconds
        for outcome in chunk.outcomes:
            self._take(outcome)
        full = len(self._inserts) + len(self._updates) + len(self._copies) >= self._commit_rows
        if full or time.monotonic() - self._last_commit >= _COMMIT_SECONDS:
            self.commit()

    def fail(self, failed: Failed) -> None:
        """Record a file that could not be brought in."""
        self._report.failed += 1
        self._failures.append(failed)
        self.failed_uris.add(failed.file.uri)

    def relabel(self, row: Known, facts: Mapping[str, Any]) -> None:
        """Give an unchanged image other labels."""
        self._report.updated += 1
        self._updates.append({"image_id": row.image_id, **facts})

    def commit(self) -> None:
        """Write everything that is queued."""
        self._last_commit = time.monotonic()
        if self._store is None:
            return
        self._copy_content(self._store)
        if self._inserts:
            self._store.upsert(image_table(self._inserts, self._store))
            self._inserts.clear()
        for group in _by_columns(self._updates):
            self._store.update(image_table(group, self._store))
        self._updates.clear()
        if self._failures:
            self._store.record_failures(failure_table(self._failures))
            self._failures.clear()

    def _take(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self.fail(outcome)
        elif isinstance(outcome, SameContent):
            self._take_same(outcome)
        else:
            self._take_prepared(outcome)

    def _take_prepared(self, done: Prepared) -> None:
        self._report.encoded += 1
        content = {"content_hash": done.content_hash, **done.facts, "vectors": done.vectors}
        self._put(done.job.known, done.job.file, content)

    def _take_same(self, same: SameContent) -> None:
        known, file = same.job.known, same.job.file
        if known is not None and known.content_hash == same.content_hash:
            self._put(known, file, {})
            return
        moved = self._known.claim_moved(same.content_hash) if known is None else None
        if moved is not None:
            self._put(moved, file, {"uri": file.uri})
            return
        row = self._put(known, file, {}, queue=False)
        self._copies.append((self._known.same_content(same.content_hash).image_id, row))

    def _put(
        self, known: Known | None, file: FoundFile, content: dict[str, Any], queue: bool = True
    ) -> dict[str, Any]:
        """Queue a row: an insert where the image is new, an update of its columns where not."""
        row = {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, **content}
        if self._labels:
            row |= self._labels.facts(file.path)
        row["ingested_at"] = datetime.now(UTC)
        if known is None:
            self._report.added += 1
            row |= {"image_id": self._known.new_id(file.uri), "uri": file.uri}
        else:
            self._report.updated += 1
            row["image_id"] = known.image_id
        if queue:
            (self._updates if known else self._inserts).append(row)
        return row

    def _copy_content(self, store: Store) -> None:
        """Fill queued rows whose bytes another row already has from that row."""
        if not self._copies:
            return
        columns = ["content_hash", "width", "height", "format", "captured_at", "metadata"]
        columns += ["thumbnail", *(store.vector_column(name) for name in store.spaces)]
        sources = sorted({source for source, _ in self._copies})
        table = store.rows(sources, columns)
        place = {source: at for at, source in enumerate(sources)}
        for source, row in self._copies:
            content = table.slice(place[source], 1).to_pylist()[0]
            vectors = {name: content.pop(store.vector_column(name)) for name in store.spaces}
            full = {**content, **row, "vectors": vectors}
            (self._inserts if "uri" in row else self._updates).append(full)
        self._copies.clear()


def _by_columns(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group rows that set the same columns, later rows of one image winning over earlier ones."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        merged[row["image_id"]] = merged.get(row["image_id"], {}) | row
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in merged.values():
        spaces = tuple(sorted(row.get("vectors", ())))
        groups[(*sorted(row), spaces)].append(row)
    return list(groups.values())
