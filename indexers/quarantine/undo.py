"""Bringing back what a plan took away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexers.marks import is_quarantine, quarantine_of
from indexers.quarantine.files import finish, move, why_not
from indexers.quarantine.journal import Entry, Journal, all_columns, alone
from indexers.quarantine.plan import QuarantineReport, read_plan
from retrieval.errors import PlanError
from retrieval.query import Collection
from retrieval.store import Store
from retrieval.uris import uri_of

if TYPE_CHECKING:
    import pyarrow as pa


def undo(
    path: str | os.PathLike[str],
    collection: Collection,
    *,
    tell: Callable[[int, int], None] | None = None,
) -> QuarantineReport:
    """Put the files of a plan back where they were, and their rows back into the collection.

    Files come back with their bytes, times and permissions, rows with their ids and vectors; also
    after an ``apply`` or an ``undo`` that was killed. What is at a file's place now is never
    overwritten: that file stays in quarantine and is reported. When all is back, the quarantine is
    removed and the plan can be applied again; undoing what was not applied does nothing. Index
    nothing in the folders meanwhile.

    Args:
        path: of the plan.
        collection: the one that the plan was made for.
        tell: called with the number of files that are done, and of all.

    Returns:
        What came back. A row of the same file that was indexed meanwhile gives way to the one that
        was saved. Where a row cannot come back, its file does, and that is told among what was
        refused; the quarantine keeps the row then.

    Raises:
        PlanError: if there is no plan, it is another collection's, its quarantine has another
            plan's name, or saved rows are damaged.
        CollectionError: if rows cannot be written; call again when they can.
    """
    place = Path(os.path.abspath(path))
    folder = quarantine_of(place)
    report = QuarantineReport(quarantine=str(folder))
    with alone(collection.uri, place.parent):
        journal = Journal(folder)
        if not journal.facts:
            _check_name(place)
            journal.forget()
            return report
        if journal.facts["collection_id"] != collection.store.collection_id:
            raise PlanError(
                f"{place} is a plan for another collection than {collection.uri}; "
                f"what it took away is in {folder}"
            )
        journal.sweep()
        back = _Run(journal, collection.store.again(), report, tell).all()
        if hasattr(os, "sync"):
            os.sync()  # what is forgotten must have arrived
        if len(back) == len(journal.entries):
            journal.forget()
        else:
            journal.stay(back)
    collection.store.refresh()
    return report


class _Run:
    def __init__(
        self,
        journal: Journal,
        store: Store,
        report: QuarantineReport,
        tell: Callable[[int, int], None] | None,
    ) -> None:
        self._journal = journal
        self._store = store
        self._report = report
        self._tell = tell
        self._finished = 0

    def all(self) -> list[int]:
        """Ids of what is back, and needs the quarantine no more."""
        waiting, back = dict(self._journal.entries), []
        for rows in self._journal.saved_rows():
            ids = [i for i in rows["image_id"].to_pylist() if i in waiting]  # newest rows first
            files = self._files([waiting.pop(i) for i in ids])
            back += self._rows(_of(rows, files))
        files = self._files(list(waiting.values()))
        self._tell_rowless([waiting[i] for i in files])
        return back + files

    def _files(self, entries: list[Entry]) -> list[int]:
        """Bring files back; ids of those that are at their place now."""
        back = []
        for entry in entries:
            if reason := _restored(self._journal, entry, self._report):
                self._report.refused.append((entry.uri, reason))
            else:
                back.append(entry.image_id)
            self._finished += 1
            if self._tell is not None:
                self._tell(self._finished, len(self._journal.entries))
        return back

    def _rows(self, rows: pa.Table) -> list[int]:
        """Put saved rows back; ids of those that are there."""
        self._store.refresh()
        there = _There(self._store, rows)
        lacking = _fitting(_of(rows, there.lacking), self._store)
        if self._store.insert(lacking) < len(lacking):
            return self._rows(rows)  # another process came first: look again
        self._store.upsert(_fitting(_of(rows, there.newer), self._store))
        self._store.delete(there.doubles)
        self._report.refused.extend(there.refused.values())
        return [i for i in rows["image_id"].to_pylist() if i not in there.refused]

    def _tell_rowless(self, entries: list[Entry]) -> None:
        self._store.refresh()
        known = set(self._store.known()["uri"].to_pylist()) if entries else set()
        for entry in entries:
            if entry.uri not in known:
                reason = "it is back, but its row is lost: index its folder to find it again"
                self._report.refused.append((entry.uri, reason))


class _There:
    """What a collection has in the place of saved rows.

    Attributes:
        lacking: ids of the saved rows that it has not.
        newer: ids that it has for the same file, indexed again.
        doubles: other ids that it has for the same file.
        refused: by id what cannot be put back: its uri and why.
    """

    def __init__(self, store: Store, saved: pa.Table) -> None:
        import pyarrow.compute as pc

        self.lacking: list[int] = []
        self.newer: list[int] = []
        self.doubles: list[int] = []
        self.refused: dict[int, tuple[str, str]] = {}
        known = store.known().select(["image_id", "uri", "content_hash"])
        same = pc.or_(
            pc.is_in(known["uri"], saved["uri"].combine_chunks()),
            pc.is_in(known["image_id"], saved["image_id"].combine_chunks()),
        )
        rows = known.filter(same).to_pylist()
        times = store.rows([row["image_id"] for row in rows], ["ingested_at"])["ingested_at"]
        by_id = {row["image_id"]: row for row in rows}
        by_uri: dict[str, list[dict[str, Any]]] = {}
        for row, time in zip(rows, times.to_pylist(), strict=True):
            row["ingested_at"] = time
            by_uri.setdefault(row["uri"], []).append(row)
        facts = saved.select(["image_id", "uri", "content_hash", "ingested_at"])
        for row in facts.to_pylist():
            self._sort(row, by_id.get(row["image_id"]), by_uri.get(row["uri"], []))

    def _sort(
        self, row: dict[str, Any], now: dict[str, Any] | None, others: list[dict[str, Any]]
    ) -> None:
        if now is not None and now["uri"] != row["uri"]:
            reason = f"its id is the one of {now['uri']} now: index its folder to find it again"
        elif any(other["content_hash"] != row["content_hash"] for other in others):
            reason = "the collection has another picture at its place: index its folder, undo again"
        else:
            reason = ""
            self.doubles += [o["image_id"] for o in others if o is not now]
            if now is None:
                self.lacking.append(row["image_id"])
            elif now["ingested_at"] != row["ingested_at"]:  # else it never left, or is back
                self.newer.append(row["image_id"])
        if reason:
            self.refused[row["image_id"]] = row["uri"], f"it is back, but not its row: {reason}"


def _check_name(place: Path) -> None:
    """See that a plan that seems not to be applied was not applied under another name."""
    if not place.exists():
        beside = [str(f) for f in sorted(place.parent.glob("*")) if is_quarantine(f)]
        there = f"; there is {', '.join(beside)}" if beside else ""
        raise PlanError(f"there is no plan {place}{there}")
    _, digest = read_plan(place)
    for folder in sorted(place.parent.iterdir()):
        if is_quarantine(folder) and Journal(folder).facts.get("plan") == digest:
            name = folder.name.removesuffix(quarantine_of(place).name.removeprefix(place.name))
            raise PlanError(f"what {place} took away is in {folder}: call the plan {name} again")


def _restored(journal: Journal, entry: Entry, report: QuarantineReport) -> str | None:
    """Bring one file back; why it could not be done, or None."""
    where, path = journal.hidden(entry), entry.path
    if not os.path.lexists(where):
        if entry.image_id not in journal.done:
            return None  # it never left
        if reason := why_not(path, entry.content_hash):
            return f"no longer in quarantine, and at its place: {reason}"
        return None
    try:
        facts = os.lstat(where)
        if os.path.lexists(path):
            if not finish(where, path, entry.content_hash):
                return f"something else is at its place; it stays in quarantine: {uri_of(where)}"
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            move(where, path, journal.parts(entry)[1], entry.content_hash, facts)
    except OSError as error:
        return (
            f"cannot be moved back: {error.strerror or error}; it is in quarantine: {uri_of(where)}"
        )
    report.restored += 1
    report.bytes += facts.st_size
    return None


def _of(rows: pa.Table, ids: list[int]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.is_in(rows["image_id"], pa.array(ids, pa.int64())))


def _fitting(rows: pa.Table, store: Store) -> pa.Table:
    """``rows`` without the columns that the collection has no more, or has otherwise."""
    now = store.rows([], all_columns(store)).schema
    return rows.select([f.name for f in rows.schema if f in list(now)])
