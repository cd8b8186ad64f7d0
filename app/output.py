"""What people and programs see: consoles, JSON, tables, the progress bar."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from indexers import IngestReport
    from indexers.sources import FolderSource
    from retrieval.types import Hits

Answer = dict[str, Any]
"""An answer as `--json` prints it."""


def console(stderr: bool = False) -> Console:
    """A console that neither highlights numbers nor reads markup in people's file names."""
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """Tell of an error on stderr."""
    console(stderr=True).print(Text("error: ", style="bold red") + Text(printable(message)))


def note(message: str) -> None:
    """Tell something beside the result, on stderr."""
    console(stderr=True).print(Text(message, style="dim"))


def printable(text: str) -> str:
    """Text whose control characters cannot drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False, indent=2) + "\n")


def print_paths(answer: Answer) -> None:
    """One path a line, as bytes, so that any name works in a pipe; URLs as they are."""
    from retrieval.uris import path_of

    for hit in answer["hits"]:
        path = path_of(hit["uri"])
        sys.stdout.buffer.write(os.fsencode(path if path is not None else hit["uri"]) + b"\n")
    sys.stdout.buffer.flush()


def hits_as_json(hits: Hits) -> Answer:
    """The answer for machines."""
    return {
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "relevance": hit.relevance,
                "image_id": hit.image.image_id,
                "uri": hit.image.uri,
                "label": hit.image.label,
                "metadata": dict(hit.image.metadata),
            }
            for hit in hits
        ],
        "verdict": hits.verdict,
        "space": hits.space,
        "version": hits.version,
    }


def print_hits(answer: Answer) -> None:
    """The answer for people: rank, score, id, label and the whole path, never cut or folded."""
    rows = [("", "score", "relevance", "id", "label", "path")]
    for hit in answer["hits"]:
        label = printable(hit["label"] or "").replace("\n", " ")
        path = printable(hit["uri"]).replace("\n", "\\n")
        worth = "" if hit["relevance"] is None else f"{hit['relevance']:.2f}"
        score = f"{hit['score']:.3f}"
        rows.append((str(hit["rank"]), score, worth, str(hit["image_id"]), label, path))
    print_columns(rows, right={0, 1, 2, 3})
    if answer["verdict"] == "no good match":
        note("no good match: what has nothing to do with these images gets hits as near as these")
    elif answer["verdict"] == "weak match":
        note("weak match: hits hardly nearer than what unrelated queries get")


def print_columns(
    rows: Sequence[Sequence[str]], right: set[int] | frozenset[int] = frozenset()
) -> None:
    """Aligned columns under a header; a last column of any length; nothing cut."""
    used = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    widths = {at: max(len(row[at]) for row in rows) for at in used}
    out = console()
    for number, row in enumerate(rows):
        cells = [
            row[at].rjust(widths[at]) if at in right else row[at].ljust(widths[at]) for at in used
        ]
        out.print(Text("  ".join(cells).rstrip(), style="bold" if number == 0 else ""))


@contextmanager
def progress_bar(
    sources: Sequence[FolderSource], shown: bool
) -> Iterator[Callable[[IngestReport], None]]:
    """A progress bar on stderr with rate, ETA and failures.

    Args:
        sources: what is worked through; counted beside the work, in a thread of its own.
        shown: whether to draw anything.
    """
    import threading

    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(elapsed_when_finished=False),
        progress.TextColumn("{task.fields[failed]}", style="red"),
    )
    bar = progress.Progress(*columns, console=console(stderr=True), disable=not shown)
    task = bar.add_task("indexing", total=None, rate="", failed="")

    def count() -> None:
        bar.update(task, total=sum(1 for source in sources for _ in source))

    if shown:
        threading.Thread(target=count, daemon=True).start()

    def watch(report: IngestReport) -> None:
        rate = bar.tasks[0].speed
        bar.update(
            task,
            completed=report.done,
            rate=f"{rate:.0f}/s" if rate else "",
            failed=f"{report.failed} failed" if report.failed else "",
        )

    with bar:
        yield watch
