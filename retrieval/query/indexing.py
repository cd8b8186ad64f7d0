"""Indexes of a collection: where they lie, when they are due, how they are made."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval import folders, settings
from retrieval.errors import DamagedIndex, VectorIndexError
from retrieval.query import record_file
from retrieval.query.view import first_view
from retrieval.store import Store
from retrieval.uris import path_of
from retrieval.vectors import choose, index_files
from retrieval.vectors.index_files import OpenIndex
from retrieval.vectors.kinds import KINDS, backend
from retrieval.vectors.tune import Trial
from retrieval.vectors.vector_file import VectorFile, write_part

_log = logging.getLogger(__name__)
Tell = Callable[[str], None]
Texts = Callable[[str], NDArray[np.float32] | None]

_FOLD_SHARE = 0.02  # of rows that are scanned beside an index before it takes them in
_FOLD_ROWS = 2_000
_DEAD_SHARE = 0.25
_GROWTH = 2.0  # cells and codes that were trained on so much fewer rows are trained again
_MOST_PARTS = 8
_ROOM = 1.5  # times the vectors: with codes or a graph beside them


def fold_due(rows: int, fresh: int) -> bool:
    """Whether an index of ``rows`` should take in the ``fresh`` ones that are scanned beside it."""
    return fresh >= max(_FOLD_ROWS, _FOLD_SHARE * rows)


class Indexes:
    """The indexes of one collection. They are a cache: losing them costs time, never an answer."""

    def __init__(self, store: Store, texts: Texts | None = None) -> None:
        """Of a collection.

        Args:
            store: holds the collection; to write, give a handle of its own.
            texts: gives vectors of texts ``[m, dim]`` in the space of that name, if it can: queries
                to tune on besides the space's own vectors, since words lie elsewhere than pictures.
        """
        self._store = store
        self._texts = texts or (lambda space: None)
        self._owner_id = store.collection_id

    def folder(self, space: str) -> Path:
        """Where a space's indexes are: in a local collection itself, else in the cache."""
        return self._home / self._store.vector_column(space)

    @property
    def records(self) -> Path:
        """Where the files of records are; see :mod:`~retrieval.query.record_file`."""
        return self._home / "records"

    @property
    def _home(self) -> Path:
        place = path_of(self._store.uri)
        if place is not None:
            inside = Path(place) / "indexes"
            if inside.is_dir() or os.access(place, os.W_OK):
                return inside
        where = hashlib.blake2b(self._store.uri.encode(), digest_size=16).hexdigest()
        return settings.load().cache_dir / "indexes" / where

    def newest(
        self,
        space: str,
        kind: str | None = None,
        *,
        opened: OpenIndex | None = None,
        without: Collection[Path] = (),
    ) -> OpenIndex | None:
        """The best index for the store's version; None if there is none to be trusted.

        Args:
            space: name of the space.
            kind: only this kind; None for any.
            opened: is not opened again if it is still the best.
            without: folders of indexes that are not to be used.
        """
        there, owner = self.folder(space), self._owner(space)
        return index_files.newest(
            there, owner, self._store.version, kind, opened=opened, without=without
        )

    def build(
        self,
        space: str,
        kind: str = "auto",
        *,
        target: float = choose.TARGET,
        tell: Tell | None = None,
    ) -> dict[str, Any]:
        """Make an index of all vectors of a space, and show it to all processes in one move.

        Args:
            space: name of the space.
            kind: one of :data:`~retrieval.vectors.kinds.KINDS`, or ``auto``: tries what suits so
                many rows and takes the first that reaches the target.
            target: for ann_recall_at_10.
            tell: called with a line about each step.

        Returns:
            What ``index.json`` says of it.

        Raises:
            VectorIndexError: if the kind cannot be used here, or the index cannot be written.
        """
        if kind != "auto" and (why := backend(kind).missing()):
            raise VectorIndexError(f"an index of kind {kind} cannot be made here: {why}")
        there = self.folder(space)
        with _turn(there):
            self._store.refresh()  # another process may have written while this one waited
            parts, ids = self._parts(space, there)
            rows = VectorFile([there / part for part in parts])
            n, dim = rows.shape
            budget = settings.load().index_memory_bytes
            kinds = choose.kinds_for(n, dim, budget) if kind == "auto" else [kind]
            trial, say = Trial(rows, self._texts(space)), tell or partial(_log.info, "%s")
            for each in kinds:
                say(f"{space}: building {each} of {n:,} vectors")
                make = partial(self._make, each, rows, trial, target)
                try:
                    folder = self._publish(space, each, ids, parts, make, asked=kind, trained=n)
                except (VectorIndexError, RuntimeError, MemoryError) as error:
                    if each == kinds[-1]:
                        raise
                    say(f"{space}: {each} cannot be built: {error}")
                    continue
                facts = folders.read_note(folder, index_files.NOTE)
                if facts["measured"]["low"] >= target or each == kinds[-1]:
                    break
                say(f"{space}: {each} surely reaches {facts['measured']['low']:.3f} only")
                index_files.discard(folder)
            self._sweep(space, there, folder, kind)
        self.keep_records()
        return facts

    def update(self, space: str, *, tell: Tell | None = None) -> bool:
        """Take in what came since the indexes were made, where that is due.

        Few new rows are left to the scan beside the index. A space that has become large gets its
        first index.

        Returns:
            Whether anything was written.
        """
        there = self.folder(space)
        done, kinds = [], [kind for kind in index_files.kinds(there) if kind in KINDS]
        told = {facts["kind"]: facts for facts in reversed(self.facts(space))}
        for kind in kinds:
            base = self.newest(space, kind)
            if base is not None:
                done.append(self._update(space, base, tell))
            elif kind not in index_files.kinds(there):  # it was damaged, and thrown away just now
                self._build_again(space, told.get(kind, {}), kind, tell)
                done.append(True)
        if done or not choose.wanted(self._store.embedded(space), self._store.space(space).dim):
            return any([*done, self.keep_records()])
        self.build(space, tell=tell)
        return True

    def keep_records(self) -> bool:
        """Write the file that records are read from anew, if that is due; whether it was."""
        try:
            return record_file.renew(self.records, self._store)
        except OSError as error:
            raise VectorIndexError(
                f"records cannot be written to {self.records}: {error}{folders.advice(error)}"
            ) from error

    def _update(self, space: str, base: OpenIndex, tell: Tell | None) -> bool:
        try:
            due = self._due(space, base)
            if due == "fold":
                base.rows.check()  # what is damaged is not carried on
        except DamagedIndex as error:
            self._throw_away(base, error)
            due = "build"
        if due == "fold":
            return self._fold(space, base)
        if due == "build":
            self._build_again(space, base.facts, base.kind, tell)
        return due == "build"

    def _build_again(
        self, space: str, facts: Mapping[str, Any], kind: str, tell: Tell | None
    ) -> None:
        """Build what was asked for, with its target; just the kind where no note tells."""
        target = facts["measured"]["target"] if facts else choose.TARGET
        self.build(space, facts.get("asked", kind), target=target, tell=tell)

    def _due(self, space: str, base: OpenIndex) -> Literal["nothing", "fold", "build"]:
        view = first_view(self._store, space, base)
        fresh, dead = len(view.fresh[0]), 0 if view.dead is None else int(view.dead.sum())
        total = len(base.ids) + fresh
        grown = total - dead > _GROWTH * int(base.facts["trained"])
        if dead > _DEAD_SHARE * total or grown:
            return "build"
        if not fold_due(len(base.ids), fresh):
            return "nothing"
        foldable = backend(base.kind).incremental and len(base.parts) < _MOST_PARTS
        return "fold" if foldable else "build"

    def drop(self) -> None:
        """Remove all indexes and the file of records: nothing of any vector or image is left.

        Raises:
            VectorIndexError: if something cannot be removed.
        """
        for there in [self.records, *map(self.folder, self._store.spaces)]:
            if there.is_dir():
                with folders.turn(there):
                    index_files.sweep(there, [])
                    shutil.rmtree(there, ignore_errors=True)  # leavings of killed processes too
                    if there.is_dir() and any(there.iterdir()):
                        raise VectorIndexError(f"the indexes in {there} cannot be removed")

    def facts(self, space: str) -> list[dict[str, Any]]:
        """What each index of a space says of itself, newest first; they are not opened."""
        owner = self._owner(space)
        found = index_files.published(self.folder(space))
        ours = [facts for _, facts in found if facts["format"] <= folders.FORMAT]
        return [facts for facts in ours if facts["owner"] == owner]

    def _owner(self, space: str) -> list[Any]:
        made = self._store.space(space)
        return [self._owner_id, made.name, *made.identity]

    def _parts(self, space: str, there: Path) -> tuple[list[str], NDArray[np.int64]]:
        """Parts that hold all vectors of this version, and their ids: another index's, or new."""
        for facts in self.facts(space):
            base = None
            if facts["version"] == self._store.version:
                base = self.newest(space, facts["kind"])
            if base is None or base.version != self._store.version or (base.ids < 0).any():
                continue
            try:
                base.rows.check()
                return base.parts, base.ids
            except DamagedIndex as error:
                self._throw_away(base, error)
        ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]

        def blocks() -> Iterator[NDArray[Any]]:
            for block in self._store.scan(space):
                ids.append(block.ids[block.present])
                yield block.vectors

        part = self._write(space, there, blocks(), self._store.embedded(space))
        return [part], np.concatenate(ids)

    def _write(self, space: str, there: Path, blocks: Iterable[NDArray[Any]], rows: int) -> str:
        name = f"part-{token_hex(8)}"
        size = 4 * self._store.space(space).dim * rows
        free = shutil.disk_usage(there).free
        if free < _ROOM * size:
            raise VectorIndexError(
                f"an index of {space!r} takes {_ROOM * size / 1e9:.1f} GB and {there} has "
                f"{free / 1e9:.1f} GB left: make room there"
            )
        try:
            write_part(there / name, blocks, self._store.space(space).dim)
        except OSError as error:
            raise VectorIndexError(
                f"vectors cannot be written to {there}: {error}{folders.advice(error)}"
            ) from error
        return name

    def _make(
        self, kind: str, rows: VectorFile, trial: Trial, target: float, folder: Path
    ) -> dict[str, Any]:
        started = time.perf_counter()
        backend(kind).build(rows, folder)
        seconds = time.perf_counter() - started
        index = backend(kind).open(folder, rows)
        chosen, tried = trial.tune(index, target)
        return {
            "effort": [chosen.effort.probes, chosen.effort.factor],
            "measured": {
                **chosen.as_json(),
                "target": target,
                "build_s": round(seconds, 2),
                "bytes_per_vector": round(index.memory_bytes / max(1, rows.shape[0]), 1),
            },
            "tried": [each.as_json() for each in tried],
        }

    def _fold(self, space: str, base: OpenIndex) -> bool:
        """Grow an index by the rows that came since; False if another process was faster."""
        there = self.folder(space)
        with _turn(there):
            self._store.refresh()
            latest = self.newest(space, base.kind, opened=base)
            if latest is None or latest.folder != base.folder:
                return False
            view = first_view(self._store, space, base)
            ids, vectors = view.fresh
            parts = [*base.parts, self._write(space, there, [vectors], len(ids))]
            rows = VectorFile([there / part for part in parts])
            start = len(base.ids)

            def make(folder: Path) -> dict[str, Any]:
                backend(base.kind).extend(base.folder, rows, start, folder)
                return {fact: base.facts[fact] for fact in ("effort", "measured", "tried")}

            old = base.ids if view.dead is None else np.where(view.dead, -1, base.ids)
            ids, asked = np.concatenate([old, ids]), base.facts.get("asked", base.kind)
            trained = int(base.facts["trained"])
            folder = self._publish(space, base.kind, ids, parts, make, asked=asked, trained=trained)
            self._sweep(space, there, folder, asked)
        return True

    def _publish(
        self,
        space: str,
        kind: str,
        ids: NDArray[np.int64],
        parts: list[str],
        make: Callable[[Path], dict[str, Any]],
        *,
        asked: str,
        trained: int,
    ) -> Path:
        facts = {
            "owner": self._owner(space),
            "version": self._store.version,
            "images": self._store.count(),
            "asked": asked,
            "trained": trained,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return index_files.publish(self.folder(space), kind, facts, ids, parts, make)

    @staticmethod
    def _throw_away(base: OpenIndex, error: DamagedIndex) -> None:
        _log.warning("an index is damaged and will be built again: %s", error)
        index_files.discard(base.folder)

    def _sweep(self, space: str, there: Path, latest: Path, asked: str) -> None:
        """Keep the newest index of each kind, and those of newer versions of this software.

        Of those that auto chose only the latest stays, whatever the kind.
        """
        kept, kinds = [latest], {latest.name.rsplit("-", 2)[0]}
        owner = self._owner(space)
        for folder, facts in index_files.published(there):
            if facts["format"] > folders.FORMAT:
                kept.append(folder)
            elif facts["owner"] != owner or facts.get("asked") == asked == "auto":
                continue
            elif facts["kind"] not in kinds:
                kept.append(folder)
                kinds.add(facts["kind"])
        index_files.sweep(there, kept)


@contextmanager
def _turn(there: Path) -> Iterator[None]:
    """One process at a time writes a space's indexes, into a folder that is there."""
    with ExitStack() as held:
        try:
            there.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(folders.turn(there))
            there.mkdir(exist_ok=True)  # only now: a purge that we waited for removes it
        except OSError as error:
            raise VectorIndexError(f"{there} cannot be written: {error}") from error
        yield
