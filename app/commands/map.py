"""`retrieval map`: all images on a plane, like near like."""

from __future__ import annotations

from typing import Annotated

import typer

from app import options
from app.output import console, note, print_json


def draw_map(
    collection: options.Collection,
    method: Annotated[
        str,
        typer.Option(metavar="auto|umap|pca", help="auto takes UMAP where it is installed."),
    ] = "auto",
    space: Annotated[str | None, typer.Option(help="Lay out this space.")] = None,
    seed: Annotated[int, typer.Option(help="Of UMAP: another one draws another map.")] = 0,
    picture: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Draw the images at their places.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Lay all images out on a plane, like near like, as columns map_x and map_y in [-1, 1].

    Example: `retrieval map -c photos.lance --picture map.png`
    """
    import retrieval
    from app.progress import bar
    from retrieval.errors import QueryError

    if picture and not picture.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise QueryError(f"a map's picture is a .png, .jpg or .webp file, not {picture!r}")
    opened = retrieval.open(collection)
    with bar("comparing", not json) as tell:
        found = opened.map(method, space=space, seed=seed, tell=tell)  # type: ignore[arg-type]
    drawn = None
    if picture:
        from app.map_picture import map_picture

        image, drawn = map_picture(opened, found)
        image.save(picture)
    if json:
        facts = {"space": found.space, "method": found.method, "images": len(found.ids)}
        print_json({**facts, "picture": picture, "drawn": drawn, "version": opened.version})
        return
    console().print(f"{len(found.ids)} images of {found.space} laid out by {found.method}")
    if found.method == "pca" and method == "auto":
        note("UMAP keeps neighbours together better: pip install 'retrieval[map]'")
    if picture:
        left = "" if drawn == len(found.ids) else f"; {drawn} of {len(found.ids)} are drawn"
        note(f"map: {picture}{left}")
    else:
        note("to look at it: --picture OUT.png")
