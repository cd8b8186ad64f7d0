"""`retrieval check`: is this picture already there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import options, same
from app.output import complain, print_columns, print_json, printable

if TYPE_CHECKING:
    from retrieval.query.duplicates.admission import Admission


def check(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="New pictures.")],
    collections: Annotated[
        list[str],
        typer.Option("--collection", "-c", metavar="COLLECTION", help="Where to look; repeat it."),
    ],
    threshold: same.Bar = "auto",
    tier: same.Tiers = None,
    space: same.Space = None,
    json: options.Json = False,
) -> None:
    """Say of new pictures whether they are already in any of these collections.

    One that cannot be read does not keep the others from an answer; the exit status is 1 then.

    Example: `retrieval check new.jpg -c photos.lance -c archive.lance`
    """
    import retrieval
    from app.progress import bar

    opened = [retrieval.open(collection) for collection in collections]
    cosine = "auto" if threshold == "auto" else same.threshold_of(opened[0], threshold, tiers=())
    with bar("fitting the threshold", shown=not json) as tell:
        found = opened[0].check(
            images,
            against=opened[1:],
            space=space,
            threshold=cosine,
            tiers=same.tiers_of(tier),
            tell=tell,
        )
    results = [_as_json(path, each) for path, each in zip(images, found, strict=True)]
    if json:
        print_json({"results": results})
    else:
        _print(results)
    if failed := sum(each.error is not None for each in found):
        complain(f"{failed} of {len(found)} pictures could not be checked")
        raise typer.Exit(1)


def _as_json(path: str, told: Admission) -> dict[str, Any]:
    from retrieval.uris import uri_of

    best = told.best
    return {
        "path": uri_of(path),
        "found": told.found,
        "tier": best and best.kind,
        "score": best and best.score,
        "why": best and best.why,
        "collection": best and best.collection,
        "uri": best and best.image.uri,
        "error": told.error and printable(told.error),
    }


def _print(results: Sequence[dict[str, Any]]) -> None:
    rows = [("picture", "", "score", "why", "there")]
    for one in results:
        score = f"{one['score']:.3f}" if one["found"] else ""
        tier = "error" if one["error"] else one["tier"] or "new"
        why = one["error"] or one["why"] or ""
        rows.append((one["path"], tier, score, why, one["uri"] or ""))
    print_columns([[printable(cell).replace("\n", "\\n") for cell in row] for row in rows])
