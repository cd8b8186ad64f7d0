"""Moving what a plan names to quarantine, and out of the collection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexers.quarantine.files import finish, move, one_place, why_not
from indexers.quarantine.journal import Entry, Journal, all_columns, alone
from indexers.quarantine.plan import QuarantineReport, plan_digest, quarantine_of, read_plan
from retrieval.errors import PlanError
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.uris import path_of

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 512  # that move between two commits of the collection


def apply(
    path: str | os.PathLike[str],
    collection: Collection,
    *,
    tell: Callable[[int, int], None] | None = None,
) -> QuarantineReport:
    """Move the files that a plan names to quarantine, and take their rows out of the collection.

    Nothing is deleted: the files lie in the folder ``PLAN.quarantine`` beside the plan, and
    :func:`indexers.quarantine.undo` brings everything back. A file moves only if its bytes are
    those of the plan and the image that is kept for it is still there with the bytes that the
    collection knows. What is refused is reported and stops nothing. Killed anywhere and called
    again, it ends as one run would have; called twice, the second one tries only what was refused.

    Args:
        path: a file that :func:`indexers.quarantine.write_plan` wrote.
        collection: the one that the plan was made for.
        tell: called with the number of rows of the plan that are done, and of all.

    Raises:
        PlanError: if there is no plan, it is another collection's, another plan was applied at
            this place and not undone, or the quarantine cannot be written.
        CollectionError: if the rows cannot leave the collection; call again when they can.
    """
    place = Path(os.path.abspath(path))
    table, facts = read_plan(place)
    if facts["collection_id"] != collection.store.collection_id:
        raise PlanError(
            f"{place} is a plan for the collection {facts['collection']}, not for {collection.uri}"
        )
    with alone(place.parent):
        journal = Journal(quarantine_of(place))
        digest = plan_digest(place)
        if journal.facts and journal.facts["plan"] != digest:
            raise PlanError(
                f"{journal.folder} belongs to another plan that lay at {place}: undo it first"
            )
        journal.begin(collection.store.collection_id, digest)
        return _Run(journal, collection, QuarantineReport()).all(table, tell)


class _Run:
    def __init__(self, journal: Journal, collection: Collection, report: QuarantineReport) -> None:
        self._journal = journal
        self._collection = collection
        self._report = report
        self._kept: dict[int, tuple[tuple[int, ...], str | None]] = {}
        self._saved: set[int] = set()

    def all(self, plan: pa.Table, tell: Callable[[int, int], None] | None) -> QuarantineReport:
        import pyarrow as pa

        hidden = self._halfway()
        self._saved = {i for t in self._journal.saved_rows() for i in t["image_id"].to_pylist()}
        rest = pa.array([i not in hidden for i in plan["image_id"].to_pylist()], pa.bool_())
        rows, finished = plan.filter(rest), len(hidden)
        for at in range(0, len(rows), _ROWS):
            block = rows.slice(at, _ROWS).to_pylist()
            self._some(block)
            finished += len(block)
            if tell is not None:
                tell(finished, len(plan))
        return self._report

    def _halfway(self) -> set[int]:
        """Bring what a killed run left to one of two ends; ids of what is in quarantine."""
        self._journal.sweep()
        hidden = []
        for entry in self._journal.entries.values():
            where = self._journal.hidden(entry)
            if not os.path.lexists(where):
                continue
            if os.path.lexists(entry.path) and finish(where, entry.path, entry.content_hash):
                continue  # it is at its place, and is looked at anew
            hidden.append(entry)
        unfinished = [e for e in hidden if e.image_id not in self._journal.done]
        for at in range(0, len(unfinished), _ROWS):
            self._take_out(unfinished[at : at + _ROWS])
        return {entry.image_id for entry in hidden}

    def _some(self, rows: Sequence[dict[str, Any]]) -> None:
        store = self._collection.store.again()
        here = _rows_of(store, [i for row in rows for i in (row["image_id"], row["keep_id"])])
        going = []
        for row in rows:
            if reason := self._refusal(row, here):
                self._report.refused.append((row["uri"], reason))
            else:
                going.append(Entry(row["image_id"], row["uri"], row["content_hash"]))
        if going:
            self._journal.intend(going)
            self._take_out([entry for entry in going if self._moved(entry)])

    def _refusal(self, row: dict[str, Any], here: dict[int, tuple[str, str]]) -> str | None:
        uri, known, kept = row["uri"], here.get(row["image_id"]), here.get(row["keep_id"])
        if known is None and row["image_id"] not in self._saved:
            return "no longer in the collection"
        if known is not None and known != (uri, row["content_hash"]):
            return "the collection knows another file of this image now: make a new plan"
        if reason := why_not(path_of(uri), row["content_hash"]):
            return reason
        if kept is None:
            return f"the image kept for it, {row['keep_uri']}, is no longer in the collection"
        if reason := self._why_not_kept(row["keep_id"], *kept):
            return f"the image kept for it, {kept[0]}: {reason}"
        if one_place(uri, kept[0]):
            return "it is the file that is kept for it, by another name"
        return None

    def _why_not_kept(self, image_id: int, uri: str, content_hash: str) -> str | None:
        """As :func:`why_not`, reading each kept file once as long as it looks the same."""
        path = path_of(uri)
        try:
            facts = os.lstat(path or uri)
        except OSError:
            return why_not(path, content_hash)
        look = (facts.st_dev, facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns)
        if self._kept.get(image_id, ((), None))[0] != look:
            self._kept[image_id] = look, why_not(path, content_hash)
        return self._kept[image_id][1]

    def _moved(self, entry: Entry) -> bool:
        where, (part, _) = self._journal.hidden(entry), self._journal.parts(entry)
        try:
            move(entry.path, where, part, entry.content_hash)
        except OSError as error:
            reason = f"cannot be moved: {error.strerror or error}"
            self._report.refused.append((entry.uri, reason))
            return False
        return True

    def _take_out(self, entries: Sequence[Entry]) -> None:
        """Save the rows of files that are in quarantine, and delete them from the collection."""
        store = self._collection.store.again()
        here = _rows_of(store, [entry.image_id for entry in entries])
        ids = [e.image_id for e in entries if here.get(e.image_id, ("",))[0] == e.uri]
        if ids:
            self._journal.save_rows(store.rows(ids, all_columns(store)))
            self._collection.delete(ids)
        self._journal.finish([entry.image_id for entry in entries])
        self._report.moved += len(entries)
        self._report.bytes += sum(_sizes(self._journal, entries))


def _sizes(journal: Journal, entries: Sequence[Entry]) -> Iterator[int]:
    return (os.lstat(journal.hidden(entry)).st_size for entry in entries)


def _rows_of(store: Store, ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Uri and content hash of those ``ids`` that the collection has."""
    there = np.intersect1d(np.asarray(ids, dtype=np.int64), store.ids())
    rows = store.rows(there, ["image_id", "uri", "content_hash"]).to_pydict()
    return dict(
        zip(rows["image_id"], zip(rows["uri"], rows["content_hash"], strict=True), strict=True)
    )
