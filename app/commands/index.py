"""`retrieval index`: bring a collection up to date with a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app import options
from app.output import complain, note, print_json, progress_bar

if TYPE_CHECKING:
    from indexers import IngestReport

_Globs = list[str] | None
_Sources = Annotated[
    list[str] | None, typer.Argument(metavar="SOURCE…", help="Folders or image files.")
]
_Encoders = Annotated[
    list[str] | None,
    typer.Option(help="Encoder of a new collection, or one to add; see `retrieval encoders`."),
]
_Dtype = Annotated[
    Literal["float32", "float16"] | None,
    typer.Option(help="How a new collection stores vectors; float32 unless said."),
]
_Labels = Annotated[
    str | None,
    typer.Option(metavar="folder|CSV:COLUMN", help="Labels: folder names, or a CSV's column."),
]
_Kind = Annotated[
    str | None,
    typer.Option(
        metavar="auto|KIND",
        help="Have an index of this kind; without SOURCE, make it anew and do nothing else.",
    ),
]
_COUNTS = ("added", "updated", "skipped", "removed", "failed", "encoded")
_Target = Annotated[
    float | None,
    typer.Option(min=0.5, max=1, help="Without SOURCE: ann_recall_at_10 to reach; 0.98."),
]


def index(
    collection: options.Collection,
    source: _Sources = None,
    encoder: _Encoders = None,
    dtype: _Dtype = None,
    labels: _Labels = None,
    include: Annotated[_Globs, typer.Option(metavar="GLOB", help="Only files that match.")] = None,
    exclude: Annotated[_Globs, typer.Option(metavar="GLOB", help="Leave these out.")] = None,
    precision: options.Precision = "fp32",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; one a core by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures encoded together.")] = 16,
    prune: Annotated[bool, typer.Option("--prune", help="Take out images whose file is gone.")] = (
        False
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")
    ] = False,
    index: _Kind = None,
    target: _Target = None,
    json: options.Json = False,
) -> None:
    """Bring a collection up to date with folders of images.

    Unchanged files are skipped, moved ones keep their vectors, bad ones are told by name. Run it
    again after an interruption: it goes on where it stopped.

    Example: `retrieval index ~/Pictures -c photos.lance`
    """
    import sys

    if not source:
        others = (encoder, dtype, labels, include, exclude, workers, prune, dry_run)
        _make_index(collection, index, target or 0.98, json, others)
        return
    if target is not None:
        raise typer.BadParameter("--target goes with --index and without a SOURCE")
    from indexers import IngestInterrupted, ingest
    from indexers.sources import FolderSource
    from retrieval.store import Store

    new = not Store.exists(collection)
    sources = [FolderSource(s, include=include or (), exclude=exclude or ()) for s in source]
    if new and not encoder and not dry_run:
        _tell_default(collection)
    try:
        with progress_bar(sources, not json and sys.stderr.isatty()) as watch:
            report = ingest(
                sources,
                collection,
                encoders=encoder or None,
                dtype=dtype,
                labels=labels,
                precision=precision,
                workers=workers,
                batch_size=batch_size,
                prune=prune,
                dry_run=dry_run,
                index=index,
                watch=watch,
                tell=note,
            )
    except IngestInterrupted as stopped:
        _tell(stopped.report, collection, json, labels)
        complain(str(stopped))
        raise typer.Exit(128 + stopped.signal) from stopped
    _tell(report, collection, json, labels)


def _make_index(
    collection: str, kind: str | None, target: float, json: bool, others: tuple[object, ...]
) -> None:
    if kind is None:
        raise typer.BadParameter("name a folder, or an index to make with --index")
    if any(others):
        raise typer.BadParameter("only --index, --target and --json go without a SOURCE")
    import retrieval

    opened = retrieval.open(collection)
    made = {
        space: opened.build_index(space, kind, target=target, tell=note) for space in opened.spaces
    }
    if json:
        print_json({"indexes": made})
        return
    from app.output import console

    for space, facts in made.items():
        measured = facts["measured"]
        console().print(
            f"{space}: {facts['kind']} of {facts['rows']} vectors in {measured['build_s']} s, "
            f"ann_recall_at_10 {measured['ann_recall_at_10']:.3f}, {measured['latency_ms']:.2f} ms "
            "a query"
        )


def _tell_default(collection: str) -> None:
    from retrieval import settings

    names = settings.load().encoders
    note(f"new collection {collection} with {' + '.join(names)}")
    if names == settings.DEFAULT_ENCODERS:
        note(
            "these run anywhere without a download; for stronger ones start a new collection with "
            "--encoder siglip2-base --encoder dinov2-base"
        )


def _tell(report: IngestReport, collection: str, json: bool, labels: str | None) -> None:
    if not report.done:
        note("no file among the sources looks like an image")
    elif labels:
        note(f"labels found for {report.labelled} of {report.done - report.failed} images")
    if json:
        numbers = {name: getattr(report, name) for name in _COUNTS}
        print_json({**numbers, "seconds": round(report.seconds, 3)})
        return
    from app.output import console

    counts = ", ".join(f"{getattr(report, name)} {name}" for name in _COUNTS)
    would = "dry run, nothing written: " if report.dry_run else ""
    console().print(f"{would}{counts} in {report.seconds:.1f} s")
    if report.failed and not report.dry_run:
        note(f"what failed and why: retrieval status -c {collection} --failures")
