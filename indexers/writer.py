"""The part of ingestion that one thread does: decide what each file means, and commit it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from indexers.known import Known, KnownImages
from indexers.labels import Labels
from indexers.prepare import Chunk, Failed, Outcome, Prepared, Preparer, SameContent
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
        prepare: Preparer,
        commit_rows: int,
    ) -> None:
        """Write to ``store`` (None for a dry run) and count into ``report``."""
        self._prepare = prepare
        self._commit_rows = commit_rows
        self._store = store
        self._known = known
        self._labels = labels
        self._report = report
        self._inserts: list[dict[str, Any]] = []
        self._updates: list[dict[str, Any]] = []
        self._copies: list[SameContent] = []
        self._failures: list[Failed] = []
        self._ran: set[str] = set()
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

    def keep(self, row: Known, file: FoundFile, stored: Mapping[str, Any]) -> None:
        """Leave an unchanged image as it is, but for labels that differ from ``stored`` ones."""
        facts = self._facts(file)
        if any(stored.get(name) != value for name, value in facts.items()):
            self._report.updated += 1
            self._updates.append({"image_id": row.image_id, **facts})
        else:
            self._report.skipped += 1

    def commit(self) -> None:
        """Write everything that is queued."""
        self._last_commit = time.monotonic()
        if self._store is None:
            for same in self._copies:
                self._report.encoded += not self._known.has_content(same.content_hash)
                self._put(same.job.known, same.job.file, {})
            self._copies.clear()
            return
        self._copy_content(self._store)
        for space in sorted(self._ran):
            self._store.add_runtime(space, self._prepare.runtimes[space])
        self._ran.clear()
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
        self._ran.update(done.vectors)
        content = {"content_hash": done.content_hash, **done.facts, "vectors": done.vectors}
        known = done.job.known
        if known is None and (moved := self._known.claim_moved(done.content_hash)):
            known, content = moved, {**content, "uri": done.job.file.uri}
        self._put(known, done.job.file, content)

    def _take_same(self, same: SameContent) -> None:
        known, file = same.job.known, same.job.file
        if known is None and (moved := self._known.claim_moved(same.content_hash)):
            self._put(moved, file, {"uri": file.uri})
        elif known and known.content_hash == same.content_hash and not known.missing:
            self._put(known, file, {})
        else:
            self._copies.append(same)

    def _put(self, known: Known | None, file: FoundFile, content: Mapping[str, Any]) -> None:
        """Queue a row: an insert where the image is new, an update of its columns where not."""
        row = {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, **content}
        row |= self._facts(file)
        row["ingested_at"] = datetime.now(UTC)
        if known is None:
            self._report.added += 1
            row |= {"image_id": self._known.new_id(file.uri), "uri": file.uri}
            self._inserts.append(row)
            return
        self._report.updated += 1
        row["image_id"] = known.image_id
        self._updates.append(row)
        if row.get("content_hash", known.content_hash) != known.content_hash:
            self._known.forget_content(known)

    def _facts(self, file: FoundFile) -> Mapping[str, Any]:
        facts = self._labels.facts(file.path) if self._labels else {}
        self._report.labelled += bool(facts)
        return facts

    def _copy_content(self, store: Store) -> None:
        """Queue the rows whose bytes another row already has, taking them over from that row.

        The other row may have been overwritten or deleted since the file was hashed, by this run
        or by another process. Then the file is decoded and encoded after all.
        """
        copies, self._copies = self._copies, []
        sources = [self._known.same_content(same.content_hash) for same in copies]
        contents = _contents(store, {row.image_id for row in sources if row})
        for same, source in zip(copies, sources, strict=True):
            content = contents.get(source.image_id) if source else None
            if content is not None and content["content_hash"] == same.content_hash:
                self._put(same.job.known, same.job.file, content)
            else:
                self._take(self._prepare([same.job], reuse=False).outcomes[0])


def _contents(store: Store, ids: set[int]) -> dict[int, dict[str, Any]]:
    """What depends on a file's bytes alone, of those ``ids`` that are (still) complete rows."""
    names = {name: store.vector_column(name) for name in store.spaces}
    columns = ["content_hash", "width", "height", "format", "captured_at", "metadata", "thumbnail"]
    there = sorted(ids.intersection(store.ids().tolist())) if ids else []
    found = {}
    for row in store.rows(there, ["image_id", *columns, *names.values()]).to_pylist():
        vectors = {name: row.pop(column) for name, column in names.items()}
        if all(vector is not None for vector in vectors.values()):
            found[row.pop("image_id")] = {**row, "vectors": vectors}
    return found


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
