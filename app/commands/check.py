"""`retrieval check`: is this picture already there?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app import options, same
from app.output import print_columns, print_json, printable


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
    results: list[dict[str, Any]] = []
    for path, admission in zip(images, found, strict=True):
        best = admission.best
        results.append(
            {
                "path": path,
                "found": admission.found,
                "tier": best and best.kind,
                "score": best and best.score,
                "why": best and best.why,
                "collection": best and best.collection,
                "uri": best and best.image.uri,
            }
        )
    if json:
        print_json({"results": results})
        return
    rows = [("picture", "", "score", "why", "there")]
    for one in results:
        there = printable(one["uri"] or "").replace("\n", "\\n")
        score = f"{one['score']:.3f}" if one["found"] else ""
        rows.append((printable(one["path"]), one["tier"] or "new", score, one["why"] or "", there))
    print_columns(rows)
