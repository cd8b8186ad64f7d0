"""`retrieval leaks`: what is the same in two splits, or in two collections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from app import options, same
from app.output import complain, console, note, print_json, printable
from app.progress import bar

if TYPE_CHECKING:
    from retrieval.query.duplicates.leaks import Leaks


def leaks(
    collection: options.Collection,
    between: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column that parts the images: split."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="COLLECTION", help="Compare with this collection.")
    ] = None,
    threshold: same.Bar = "auto",
    tier: same.Tiers = None,
    space: same.Space = None,
    where: options.Where = None,
    fail_over: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Fail if there are more than N.")
    ] = None,
    sheet: same.Sheet = None,
    json: options.Json = False,
) -> None:
    """Find images that are on both sides of a border: in two splits, or in two collections.

    Example: `retrieval leaks -c data.lance --between split --fail-over 0`
    """
    import retrieval

    same.check_sheet(sheet)
    opened = retrieval.open(collection)
    other = None if against is None else retrieval.open(against)
    tiers = same.tiers_of(tier)
    cosine = same.threshold_of(opened, threshold, tiers=tiers)
    with bar("fitting and comparing", shown=not json) as tell:
        found = opened.leaks(
            between,
            against=other,
            space=space,
            threshold=cosine,
            tiers=tiers,
            where=where,
            tell=tell,
        )
    if sheet:
        from app.pairs_sheet import leaks_sheet

        leaks_sheet(opened, other or opened, found).save(sheet)
    if json:
        print_json({"leaks": _as_json(found), **same.asked_as_json(found.asked)})
    else:
        _print(found)
        if sheet:
            note(f"sheet: {printable(sheet)}")
    if fail_over is not None and len(found) > fail_over:
        complain(f"{len(found)} leaks are more than the {fail_over} that --fail-over allows")
        raise typer.Exit(1)


def _as_json(found: Leaks) -> list[dict[str, object]]:
    return [
        {
            "a": leak.a.uri,
            "b": leak.b.uri,
            "sides": list(leak.sides),
            "score": leak.score,
            "kind": leak.kind,
            "why": leak.why,
        }
        for leak in found
    ]


def _print(found: Leaks) -> None:
    out = console()
    kinds = Counter(leak.kind for leak in found)
    by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    out.print(f"{len(found)} leaks ({by_kind})" if len(found) else "no leaks")
    same.tell_threshold(found.asked)
    for leak in found.pairs[: same.SHOWN]:
        out.print()
        out.print(f"{leak.kind}  {leak.score:.3f}  {leak.why}")
        for image, side in zip((leak.a, leak.b), leak.sides, strict=True):
            out.print(f"  {printable(side)}  {same.path_in_line(image)}")
    if (more := len(found) - same.SHOWN) > 0:
        note(f"{more} more; --json gives all")
