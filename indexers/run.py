"""Bring a collection up to date with a source: idempotent, resumable, honest."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

from threadpoolctl import threadpool_limits

from indexers.indexing import bring_up_to_date, check_kind
from indexers.interrupts import Stop, stoppable
from indexers.known import Known, KnownImages, vanished
from indexers.labels import Labels, labels_from
from indexers.prepare import Chunk, Failed, Job, Preparer
from indexers.report import IngestInterrupted, IngestReport
from indexers.sample import sample_pictures
from indexers.sources import FolderSource, FoundFile, Unfindable
from indexers.spaces import Loader, collection_for, encoders_for, fill_derived
from indexers.writer import Writer
from retrieval import settings
from retrieval.encoders import Encoder
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.types import VectorType
from retrieval.uris import path_of

Source = str | os.PathLike[str] | FolderSource
Watch = Callable[[IngestReport], None]


def ingest(
    source: Source | Sequence[Source],
    collection: Collection | str | os.PathLike[str],
    *,
    encoders: Sequence[str | Encoder] | None = None,
    dtype: VectorType | None = None,
    labels: str | Labels | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    precision: str = "fp32",
    workers: int | None = None,
    batch_size: int = 16,
    commit_rows: int = 2048,
    prune: bool = False,
    dry_run: bool = False,
    index: str | None = None,
    watch: Watch | None = None,
    tell: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> IngestReport:
    """Bring ``collection`` up to date with ``source``.

    Unchanged files (path, size, time) are skipped; a moved file keeps its id and vectors; known
    bytes are not encoded again; a file that cannot be read, decoded or encoded goes to the failures
    table. Run twice, nothing changes; killed anywhere and run again, it ends where one run ends.

    Args:
        source: folder, image file, or several of them.
        collection: an open collection, or a path, where one is made if there is none.
        encoders: those of a new collection; for an existing one, more to add.
        dtype: how new spaces store vectors; float32 unless said.
        labels: ``folder``, ``FILE.csv:COLUMN``, or an object with facts by path.
        include: globs; with any, a file must match one.
        exclude: globs of files and folders to leave out.
        precision: how encoders run, see :func:`retrieval.encoders.load`.
        workers: threads; by default one for every core this process may use.
        batch_size: pictures that go through an encoder together.
        commit_rows: images written together; fewer if ten seconds have passed.
        prune: take images out whose file below ``source`` is gone.
        dry_run: read and compare, write nothing.
        index: kind of index that every space is to have; see :mod:`indexers.indexing`.
        watch: called now and then with the report so far.
        tell: called with a line about what ``precision`` chose and which indexes are made.
        stop: set it from another thread to end the run after what is under way.

    Returns:
        The report; ``failures`` of the collection says what went wrong with which file.

    Raises:
        SourceError: if a source or the labels cannot be read; nothing is written.
        EncoderError, SpaceMismatch: if an encoder cannot be loaded, or is another one than the
            collection's; nothing is written.
        VectorIndexError: if there is no index of that kind, or it cannot be made here.
        IngestInterrupted: on SIGINT or SIGTERM, after committing what was done.
    """
    started = time.monotonic()
    check_kind(index)
    sources = _sources(source, include, exclude)
    facts = labels_from(labels)
    loader = Loader("fp32" if dry_run else precision, partial(sample_pictures, sources), tell)
    target = collection_for(collection, encoders, dtype, facts, loader, dry_run=dry_run)
    usable = encoders_for(target, encoders, dtype, loader, dry_run=dry_run)
    fill_derived(target, dry_run=dry_run)
    report = IngestReport(dry_run=dry_run)
    run = _Run(sources, target, usable, facts, report, watch, commit_rows)
    with stoppable(stop) as wish:
        run.go(workers or settings.cores(), batch_size, wish, prune=prune)
        if not dry_run and not wish.is_set():
            bring_up_to_date(target, index, tell)
    return run.report_of(started, wish)


class _Run:
    """One ingest run."""

    def __init__(
        self,
        sources: Sequence[FolderSource],
        collection: Collection | None,
        encoders: Sequence[Encoder],
        labels: Labels | None,
        report: IngestReport,
        watch: Watch | None,
        commit_rows: int,
    ) -> None:
        self.sources = sources
        self.store: Store | None = collection.store if collection is not None else None
        self.labels = labels
        self.report = report
        self.watch = watch
        self.known = KnownImages()
        if self.store is not None:
            self.store.refresh()  # another process may have written since it was opened
            self.known = KnownImages.of(self.store, [encoder.spec.name for encoder in encoders])
        self.seen: set[str] = set()
        self._stored_labels = _stored_labels(self.store, labels)
        self._prepare = Preparer(
            encoders,
            self.known,
            max_pixels=settings.load().max_pixels,
            dry_run=report.dry_run,
        )
        writes = None if report.dry_run else self.store
        self.writer = Writer(writes, self.known, labels, report, self._prepare, commit_rows)

    def go(self, workers: int, batch_size: int, stop: Stop, *, prune: bool) -> None:
        """Do everything, or up to ``stop``."""
        self._work(max(1, workers), max(1, batch_size), stop)
        self.report.interrupted = stop.is_set()
        if not self.report.interrupted:
            self._finish(prune=prune)

    def report_of(self, started: float, wish: Stop) -> IngestReport:
        """The report of a run that began at ``started``; raises it if a signal ended the run."""
        self.report.seconds = time.monotonic() - started
        self.tell()
        if wish.signal is not None:
            raise IngestInterrupted(self.report, wish.signal)
        return self.report

    def tell(self) -> None:
        """Show the report to whoever watches."""
        if self.watch:
            self.watch(self.report)

    def _work(self, workers: int, batch_size: int, stop: Stop) -> None:
        """Find files and work through them, a bounded number of chunks ahead, then commit."""
        jobs = self._jobs()
        ahead: deque[Future[Chunk]] = deque()

        def guarded(chunk: Sequence[Job]) -> Chunk:
            return Chunk() if stop.is_set() else self._prepare(chunk)

        # The workers fill the cores; BLAS threads beside them would only spin while they wait.
        with (
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(workers, thread_name_prefix="ingest") as pool,
        ):
            while not stop.is_set() and (chunk := list(islice(jobs, batch_size))):
                ahead.append(pool.submit(guarded, chunk))
                if len(ahead) > 2 * workers:
                    self._take(ahead.popleft())
            while ahead:
                self._take(ahead.popleft())
        self.writer.commit()

    def _finish(self, *, prune: bool) -> None:
        """Take out what vanished, forget failures that are mended, tidy the store."""
        gone = [row for row in self.known.by_uri.values() if prune and self._is_gone(row)]
        self.report.removed = len(gone)
        if self.store is None or self.report.dry_run:
            return
        if gone:
            self.store.delete([row.image_id for row in gone])
        old = self.store.failures().column("uri").to_pylist()
        mended = [uri for uri in old if uri not in self.writer.failed_uris and self._is_mended(uri)]
        if mended:
            self.store.clear_failures(mended)
        self.store.optimize()

    def _take(self, future: Future[Chunk]) -> None:
        self.writer.take(future.result())
        self.tell()

    def _jobs(self) -> Iterator[Job]:
        """Files that need work; the others are counted and, if their labels changed, relabelled."""
        for source in self.sources:
            for found in source:
                if isinstance(found, Unfindable):
                    nothing = FoundFile(found.uri, found.uri, 0, 0)
                    self.writer.fail(Failed(nothing, "find", "unreadable", found.reason))
                elif found.uri not in self.seen:
                    self.seen.add(found.uri)
                    if self._needs_work(found):
                        yield Job(found, self.known.by_uri.get(found.uri))

    def _needs_work(self, found: FoundFile) -> bool:
        row = self.known.by_uri.get(found.uri)
        if row is None or row.missing:
            return True
        if (row.size_bytes, row.mtime_ns) != (found.size_bytes, found.mtime_ns):
            return True
        self.writer.keep(row, found, self._stored_labels.get(row.image_id, {}))
        return False

    def _is_mended(self, uri: str) -> bool:
        """Whether something that failed once was looked at now and is well, or is gone."""
        path = path_of(uri)
        listed = path is not None and os.path.isdir(path) and self._covers(uri)
        return uri in self.seen or listed or (self._covers(uri) and vanished(uri))

    def _is_gone(self, row: Known) -> bool:
        return (
            row.uri not in self.seen
            and not self.known.claimed(row)
            and self._covers(row.uri)
            and vanished(row.uri)
        )

    def _covers(self, uri: str) -> bool:
        path = path_of(uri)
        return path is not None and any(source.covers(path) for source in self.sources)


def _sources(
    source: Source | Sequence[Source], include: Sequence[str], exclude: Sequence[str]
) -> list[FolderSource]:
    given = [source] if isinstance(source, str | os.PathLike | FolderSource) else source
    return [
        each
        if isinstance(each, FolderSource)
        else FolderSource(each, include=include, exclude=exclude)
        for each in given
    ]


def _stored_labels(store: Store | None, labels: Labels | None) -> dict[int, dict[str, Any]]:
    """What the collection holds of the facts that ``labels`` would set, by image id."""
    if store is None or labels is None:
        return {}
    have = set(store.columns().names)
    names = [name for name in ("label", "split", "tags", *labels.columns) if name in have]
    table = store.rows(store.ids(), ["image_id", *names])
    return {row.pop("image_id"): row for row in table.to_pylist()}
