"""`retrieval distill`: a small student of a large encoder, trained on one's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import complain, console, note, print_columns, print_json

if TYPE_CHECKING:
    from indexers.distill import DistillReport, Progress


def distill(
    teacher: Annotated[str, typer.Option(help="The encoder to imitate; see `retrieval encoders`.")],
    data: Annotated[
        list[str], typer.Option(metavar="FOLDER", help="Pictures of yours; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The student's new folder.")],
    labels: Annotated[
        str | None,
        typer.Option(metavar="folder|CSV:COLUMN", help="Labels to compare accuracies by."),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Captions to learn words from: file, caption."),
    ] = None,
    precision: options.Precision = "fp32",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: options.Json = False,
) -> None:
    """Train a small, fast encoder on your pictures that imitates a large one.

    What it makes is a folder that `--encoder` takes. How far it agrees with its teacher is
    measured on pictures that it has not seen. Interrupted, the same command goes on. Needs torch.

    Example: `retrieval distill --teacher dinov2-base --data ~/Pictures --out small-dino`
    """
    import sys
    from dataclasses import asdict

    from indexers.distill import DistillInterrupted
    from indexers.distill import distill as train

    try:
        with _progress(not json and sys.stderr.isatty()) as watch:
            report = train(
                teacher,
                data,
                out,
                labels=labels,
                captions=captions,
                precision=precision,
                epochs=epochs,
                seed=seed,
                watch=watch,
                tell=note,
            )
    except DistillInterrupted as stopped:
        complain(str(stopped))
        raise typer.Exit(128 + stopped.signal) from stopped
    if json:
        print_json(asdict(report))
    else:
        _tell(report)


def _tell(report: DistillReport) -> None:
    failed = f", {report.failed} failed" if report.failed else ""
    texts = f" and {report.texts} texts" if report.texts else ""
    console().print(
        f"{report.out}: {report.parameters / 1e6:.1f} M parameters in {report.precision}, learnt "
        f"{report.photos} photos{texts}{failed}; on {report.held_out} others:"
    )
    speed, image = report.speed, report.image
    rows: list[tuple[str, ...]] = [("", "student", report.teacher)]
    rows.append(("ms a picture, one thread", _ms(speed["student_ms"]), _ms(speed["teacher_ms"])))
    if knn := report.knn:
        rows.append(("accuracy of 20 neighbours", _share(knn["student"]), _share(knn["teacher"])))
    text = report.text or {}
    if "hit_rate_at_10_student" in text:
        pair = (text[f"hit_rate_at_10_{side}"] for side in ("student", "teacher"))
        rows.append(("captions that find their photo in 10", *map(_share, pair)))
    print_columns(rows, right={1, 2})
    agree = [("agreement", "cosine", "neighbours in common of 10")]
    agree.append(("pictures", f"{image['cosine']:.3f}", f"{10 * image['overlap_at_10']:.1f}"))
    if text:
        agree.append(("texts", f"{text['cosine']:.3f}", f"{10 * text['overlap_at_10']:.1f}"))
    print_columns(agree, right={1, 2})
    note(f"{speed['ratio']:.1f} times cheaper; use it: retrieval index … --encoder {report.out}")


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar for each stage on stderr, with ETA and loss."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(elapsed_when_finished=False),
        progress.TextColumn("{task.fields[loss]}"),
    )
    bar = progress.Progress(*columns, console=console(stderr=True), disable=not shown)
    tasks: dict[str, progress.TaskID] = {}

    def watch(now: Progress) -> None:
        if now.stage not in tasks:
            tasks[now.stage] = bar.add_task(now.stage, total=now.total, loss="")
        loss = "" if now.loss is None else f"loss {now.loss:.3f}"
        bar.update(tasks[now.stage], completed=now.done, loss=loss)

    with bar:
        yield watch
