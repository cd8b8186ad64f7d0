"""Moving what a plan names to quarantine, and out of the collection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from indexers.marks import quarantine_of
from indexers.quarantine.files import finish, move, one_place, still, why_not
from indexers.quarantine.journal import Entry, Journal, all_columns, alone
from indexers.quarantine.plan import QuarantineReport, read_plan
from retrieval.errors import PlanError
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.uris import path_of

if TYPE_CHECKING:
    import pyarrow as pa

_Row: TypeAlias = dict[str, Any]
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
    those of the plan and the image that is kept for it is there with its own of the plan, before
    and after. What is refused is reported and stops nothing. Killed anywhere and called again, it
    ends as one run would have; called twice, the second one tries only what was refused.

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
    ours = collection.store.collection_id
    with alone(collection.uri, place.parent):
        plan, digest = read_plan(place)
        if others := set(plan["collection_id"].to_pylist()) - {ours}:
            at = others.pop()
            theirs = plan["collection"][plan["collection_id"].to_pylist().index(at)]
            raise PlanError(
                f"{place} is a plan for the collection {theirs}, not for {collection.uri}"
            )
        journal = Journal(quarantine_of(place))
        if journal.facts and journal.facts["plan"] != digest:
            raise PlanError(
                f"{journal.folder} belongs to another plan that lay at {place}: undo it first"
            )
        run = _Run(journal, digest, collection)
        run.report.quarantine = str(journal.folder)
        run.all(plan.to_pylist(), tell)
        return run.report


class _Run:
    def __init__(self, journal: Journal, digest: str, collection: Collection) -> None:
        self.report = QuarantineReport()
        self._journal = journal
        self._digest = digest
        self._collection = collection
        self._looks: dict[str, tuple[os.stat_result, str, str | None]] = {}
        self._saved: set[int] = set()

    def all(self, plan: Sequence[_Row], tell: Callable[[int, int], None] | None) -> None:
        try:
            hidden = self._halfway({row["image_id"]: row for row in plan})
            self._saved = {i for t in self._journal.saved_rows() for i in t["image_id"].to_pylist()}
            rest = [row for row in plan if row["image_id"] not in hidden]
            finished = len(hidden)
            for at in range(0, len(rest), _ROWS):
                self._some(rest[at : at + _ROWS])
                finished += len(rest[at : at + _ROWS])
                if tell is not None:
                    tell(finished, len(plan))
        except PlanError as error:
            told = f"{self.report.moved} files were moved, {len(self.report.refused)} refused"
            raise PlanError(f"{error}; until then {told}: apply it again to go on") from error
        if not self._journal.entries:
            self._journal.forget()

    def _halfway(self, plan: dict[int, _Row]) -> set[int]:
        """Bring what a killed run left to one of two ends; ids of what is in quarantine."""
        self._journal.sweep()
        hidden, unfinished = set(), []
        for entry in list(self._journal.entries.values()):
            where = self._journal.hidden(entry)
            if not os.path.lexists(where):
                continue
            if os.path.lexists(entry.path) and finish(where, entry.path, entry.content_hash):
                continue  # it is at its place, and is looked at anew
            hidden.add(entry.image_id)
            if entry.image_id not in self._journal.done:
                unfinished.append((entry, plan[entry.image_id]))
        for at in range(0, len(unfinished), _ROWS):
            some = unfinished[at : at + _ROWS]
            self._take_out([entry for entry, row in some if self._may_stay_away(entry, row)])
        self._let_go(e for i, e in self._journal.entries.items() if i not in self._journal.done)
        return hidden

    def _let_go(self, entries: Iterable[Entry]) -> None:
        stayed = [e.image_id for e in entries if not os.path.lexists(self._journal.hidden(e))]
        if stayed:
            self._journal.stay(stayed)

    def _some(self, rows: Sequence[_Row]) -> None:
        store = self._collection.store.again()
        here = _rows_of(store, [i for row in rows for i in (row["image_id"], row["keep_id"])])
        going = []
        for row in rows:
            if reason := self._refusal(row, here):
                self.report.refused.append((row["uri"], reason))
            else:
                entry = Entry(row["image_id"], row["uri"], row["content_hash"])
                going.append((entry, row, self._looks.pop(entry.path)[0]))
        if not going:
            return
        entries = [entry for entry, _, _ in going]
        self._journal.begin(self._collection.store.collection_id, self._digest)
        self._journal.intend(entries)
        saved = store.rows([e.image_id for e in entries if e.image_id in here], all_columns(store))
        self._journal.save_rows(saved)
        moved = [entry for entry, row, facts in going if self._moved(entry, row, facts)]
        self._let_go(entries)
        self._take_out(moved, saved)

    def _refusal(self, row: _Row, here: dict[int, tuple[str, str]]) -> str | None:
        uri, known, kept = row["uri"], here.get(row["image_id"]), here.get(row["keep_id"])
        if known is None and row["image_id"] not in self._saved:
            return "no longer in the collection"
        if known is not None and known != (uri, row["content_hash"]):
            return "the collection knows another file of this image now: make a new plan"
        if reason := self._why_not(uri, row["content_hash"]):
            return reason
        if kept is None:
            return f"the image kept for it, {row['keep_uri']}, is no longer in the collection"
        if kept != (row["keep_uri"], row["keep_hash"]):
            return f"the image kept for it, {kept[0]}, is another one now: make a new plan"
        if reason := self._why_not(*kept):
            return f"the image kept for it, {kept[0]}: {reason}"
        if one_place(uri, kept[0]):
            return "it is the file that is kept for it, by another name"
        return None

    def _why_not(self, uri: str, content_hash: str) -> str | None:
        """As :func:`why_not`, reading each file once as long as it looks the same."""
        path = path_of(uri)
        if path is None:
            return why_not(path, content_hash)
        try:
            looked = self._looks.get(path)
            if looked is None or looked[1] != content_hash or not still(path, looked[0]):
                looked = os.lstat(path), content_hash, why_not(path, content_hash)
                self._looks[path] = looked
        except OSError:
            return why_not(path, content_hash)
        return looked[2]

    def _moved(self, entry: Entry, row: _Row, facts: os.stat_result) -> bool:
        where, (part, _) = self._journal.hidden(entry), self._journal.parts(entry)
        try:
            move(entry.path, where, part, entry.content_hash, facts)
        except OSError as error:
            reason = f"cannot be moved: {error.strerror or error}"
            self.report.refused.append((entry.uri, reason))
            return False
        return self._may_stay_away(entry, row)

    def _may_stay_away(self, entry: Entry, row: _Row) -> bool:
        """Look once more at what is kept: where it went too, the file goes back to its place.

        So of two plans that are carried out at once, or two names of one folder, no last copy goes.
        """
        reason = self._why_not(row["keep_uri"], row["keep_hash"])
        if reason is None:
            return True
        where, back = self._journal.hidden(entry), self._journal.parts(entry)[1]
        told = f"the image kept for it, {row['keep_uri']}: {reason}"
        try:
            move(where, entry.path, back, entry.content_hash, os.lstat(where))
        except OSError as error:
            told += f"; it lies in {where}: {error.strerror or error}"
        self.report.refused.append((entry.uri, told))
        return False

    def _take_out(self, entries: Sequence[Entry], saved: pa.Table | None = None) -> None:
        """Delete the rows of files that are in quarantine, kept as they are now."""
        import pyarrow as pa

        store = self._collection.store.again()
        here = _rows_of(store, [entry.image_id for entry in entries])
        ids = [e.image_id for e in entries if here.get(e.image_id) == (e.uri, e.content_hash)]
        if ids:
            rows = store.rows(ids, all_columns(store))
            chosen = pa.array(ids, pa.int64())
            if saved is None or not rows.equals(_of(saved, chosen)):
                self._journal.save_rows(rows)
            self._collection.delete(ids)
        if entries:
            self._journal.finish([entry.image_id for entry in entries])
        self.report.moved += len(entries)
        self.report.bytes += sum(os.lstat(self._journal.hidden(e)).st_size for e in entries)


def _of(rows: pa.Table, ids: pa.Array) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.is_in(rows["image_id"], ids))


def _rows_of(store: Store, ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Uri and content hash of those ``ids`` that the collection has."""
    there = np.intersect1d(np.asarray(ids, dtype=np.int64), store.ids())
    rows = store.rows(there, ["image_id", "uri", "content_hash"]).to_pydict()
    return dict(
        zip(rows["image_id"], zip(rows["uri"], rows["content_hash"], strict=True), strict=True)
    )
