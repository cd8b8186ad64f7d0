"""`retrieval shape`: how alone, how good and how typical the images of a collection are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import console, note, print_columns, print_json, printable

if TYPE_CHECKING:
    from retrieval.query.curate.report import ShapeReport

_SHOWN = 30


def shape(
    collection: options.Collection,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="MEASURE", help="uniqueness, quality or clusters; all by default."),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Make so many clusters.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(metavar="FILE", help="Name clusters by these words, one a line.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Compare in this space.")] = None,
    json: options.Json = False,
) -> None:
    """Measure all images, and write what was found as columns that --where can use.

    Example: `retrieval shape -c photos.lance`
    """
    from dataclasses import asdict

    import retrieval
    from app.progress import bar

    opened = retrieval.open(collection)
    with bar("measuring", not json) as tell:
        found = opened.shape(
            only or (),  # type: ignore[arg-type]
            clusters=clusters,
            words=words,
            space=space,
            tell=tell,
        )
    if json:
        print_json({**asdict(found), "version": opened.version})
    else:
        _print(found, collection)


def _print(found: ShapeReport, collection: str) -> None:
    out, filters = console(), []
    where = f" in {found.space}" if found.space else ""
    out.print(f"{found.images} images{where}")
    if found.near_twins is not None:
        out.print(f"{found.near_twins} have a near twin (another image with a cosine above 0.9)")
        filters.append("uniqueness < 0.1")
    if found.issues is not None:
        told = [f"{count} {name}" for name, count in found.issues.items() if count]
        out.print(f"issues: {', '.join(told) or 'none'}")
        worst = max(found.issues, key=lambda name: (found.issues or {})[name])
        filters.append(f"issues like '%{worst}%'" if told else "sharpness < 100")
    if found.clusters is not None:
        rows = [("cluster", "images", "name")]
        shown = found.clusters[:_SHOWN]
        rows += [(str(c.number), str(c.size), printable(c.name or "")) for c in shown]
        print_columns(rows, right={0, 1})
        if len(found.clusters) > _SHOWN:
            note(f"and {len(found.clusters) - _SHOWN} smaller ones")
        filters.append("cluster = 1")
    if filters:
        out.print()
        out.print("go on with filters, as:")
        for text in filters:
            out.print(f'  retrieval status -c {collection} --where "{text}"')
