"""`retrieval subset`: a few images that are unlike each other, or that stand for all."""

from __future__ import annotations

from typing import Annotated

import typer

from app import options
from app.output import note, print_columns, print_json, print_paths, printable


def subset(
    collection: options.Collection,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")],
    method: Annotated[
        str,
        typer.Option(
            metavar="farthest|coverage",
            help="Unlike each other, the odd ones first; or typical, one for each kind.",
        ),
    ] = "farthest",
    per: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="As many of each value of a column.")
    ] = None,
    where: options.Where = None,
    space: Annotated[str | None, typer.Option(help="Compare in this space.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the first pick of farthest.")] = 0,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write a yes-or-no column, too.")
    ] = None,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")] = False,
    json: options.Json = False,
) -> None:
    """Pick a few images that are unlike each other, or that stand for all.

    Example: `retrieval subset -c photos.lance -n 100 --per label --paths`
    """
    import retrieval
    from app.progress import bar
    from retrieval.errors import QueryError

    if json and paths:
        raise QueryError("--json and --paths are two forms of one answer: choose one")
    opened = retrieval.open(collection)
    with bar("picking", not json) as tell:
        picks = opened.subset(
            n,
            method=method,  # type: ignore[arg-type]
            per=per,
            where=where,
            space=space,
            seed=seed,
            column=column,
            tell=tell,
        )
    chosen = [
        {"rank": rank, "image_id": image.image_id, "uri": image.uri, "label": image.label}
        for rank, image in enumerate(opened.store.records(picks), 1)
    ]
    if json:
        print_json({"images": chosen, "column": column, "version": opened.version})
    elif paths:
        print_paths({"hits": chosen})
    else:
        rows = [("", "id", "label", "path")]
        for image in chosen:
            told = (str(image[name] or "") for name in ("rank", "image_id", "label", "uri"))
            rows.append(tuple(printable(text).replace("\n", " ") for text in told))  # type: ignore[arg-type]
        print_columns(rows, right={0, 1})
    if column is not None and not json:
        note(f'find them again with --where "{column} = true"')
