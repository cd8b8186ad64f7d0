"""`retrieval derive`: a smaller or whiter space made of one that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from app import options
from app.output import console, note, print_json
from app.progress import bar


def derive(
    collection: options.Collection,
    space: Annotated[str, typer.Option(metavar="NAME", help="The space to derive from.")],
    pca: Annotated[
        int | None, typer.Option(min=1, metavar="DIM", help="Project on so many principal axes.")
    ] = None,
    whiten: Annotated[
        int | None,
        typer.Option(min=1, metavar="DIM", help="The same, and all axes of equal strength."),
    ] = None,
    truncate: Annotated[
        int | None,
        typer.Option(min=1, metavar="DIM", help="Keep the first dimensions (Matryoshka encoders)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new space; SPACE-pca128 and the like.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a smaller or whiter space of one that is there. No image is encoded again.

    `retrieval index` keeps it up from then on; searches take it when you say --space. Run it again
    after an interruption: it goes on where it stopped.

    Example: `retrieval derive -c photos.lance --space pocket-visual --pca 128`
    """
    given = {"pca": pca, "whiten": whiten, "truncate": truncate}
    asked = [(kind, dim) for kind, dim in given.items() if dim is not None]
    if len(asked) != 1:
        raise typer.BadParameter("say one of --pca DIM, --whiten DIM and --truncate DIM")
    import retrieval
    from indexers.indexing import bring_up_to_date

    opened = retrieval.open(collection)
    [(kind, dim)] = asked
    with bar("deriving", shown=not json) as watch:
        made = opened.derive(space, kind, dim, name, watch=watch)  # type: ignore[arg-type]
    bring_up_to_date(opened, None, note)
    vectors = opened.store.embedded(made.name)
    if json:
        facts = {"base": made.base, "kind": kind, "dim": made.dim, "vectors": vectors}
        print_json({"space": made.name, **facts, "version": opened.version})
        return
    console().print(f"{made.name}: {kind} of {made.base}, {made.dim} × {vectors} vectors")
    note(f"search it with --space {made.name}")
