"""`retrieval export`: a collection in the forms that other programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import console, note, print_json, printable
from app.progress import bar

if TYPE_CHECKING:
    from retrieval.query.export import ExportReport, Form

_ENDINGS: dict[str, Form] = {".parquet": "parquet", ".csv": "csv", ".json": "coco"}


def export(
    out: Annotated[str, typer.Argument(metavar="OUT", help="A .parquet, .csv or .json, a folder.")],
    collection: options.Collection,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="parquet|csv|coco|folder", help="By default OUT says it."),
    ] = None,
    where: options.Where = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Vectors too (Parquet); may be repeated."),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(metavar="hard|symbolic", help="Links instead of copies (folder)."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a collection, or a part of it, as Parquet, CSV, COCO, or a folder of files by label.

    A folder goes on where it was interrupted, becomes what is asked for now, and overwrites nothing
    of anybody else. The command ends with 1 if files were gone or had changed; all others are there
    then.

    Example: `retrieval export -c photos.lance dresses/ --where "label = 'dress'" --link symbolic`
    """
    import retrieval
    from retrieval.query import export as exporting

    chosen = form or _form_of(out)
    opened = retrieval.open(collection)
    with bar("exporting", shown=not json) as tell:
        report = exporting.export(
            opened,
            out,
            form=chosen,  # type: ignore[arg-type]
            where=where,
            spaces=space or (),
            link=link or "copy",  # type: ignore[arg-type]
            tell=tell,
        )
    if json:
        print_json(report.as_json())
    else:
        _print(report)
    if report.refused:
        raise typer.Exit(1)


def _form_of(out: str) -> Form:
    from pathlib import Path

    from retrieval.errors import ExportError

    ending = Path(out).suffix.lower()
    if ending and ending not in _ENDINGS and not Path(out).is_dir():
        raise ExportError(f"{ending} says no form: add --format parquet, csv, coco or folder")
    return _ENDINGS.get(ending, "folder")


def _print(report: ExportReport) -> None:
    there = f", {report.skipped} of them were there" if report.skipped else ""
    console().print(printable(f"{report.out}: {report.images} images as {report.form}{there}"))
    if report.removed:
        note(f"{report.removed} files of earlier exports were removed")
    for name, folder in report.folders.items():
        note(printable(f"{name!r} is in the folder {folder!r}"))
    for uri, reason in report.refused:
        note(f"left out: {printable(uri)}: {printable(reason)}")
