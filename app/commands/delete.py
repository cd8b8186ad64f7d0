"""`retrieval delete`: take images out of a collection."""

from __future__ import annotations

from typing import Annotated

import typer

from app import options
from app.output import console, print_json


def delete(
    collection: options.Collection,
    image_id: Annotated[
        list[int] | None, typer.Option("--id", metavar="ID", help="This image; may be repeated.")
    ] = None,
    where: options.Where = None,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Leave no trace: old versions and thumbnails go as well."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: options.Json = False,
) -> None:
    """Take images out of a collection. The files themselves stay where they are.

    It asks before it does so, unless you say --yes. Without --purge, older versions of the
    collection still hold the rows until they are cleaned up. --purge alone removes the traces of
    earlier deletions; nobody else should write meanwhile.

    Example: `retrieval delete -c photos.lance --where "split = 'test'"`
    """
    import retrieval
    from retrieval.errors import QueryError

    if not image_id and where is None and not purge:
        raise QueryError("say what to delete: --id ID, --where EXPR, or --purge alone")
    opened = retrieval.open(collection)
    chosen = list(image_id or ())
    opened.store.records(chosen)  # an unknown id is an error before anything is deleted
    if where is not None:
        chosen += opened.store.ids(where).tolist()
    chosen = sorted(set(chosen))
    if not yes:
        trace = " and every trace of them" if purge else ""
        typer.confirm(f"delete {len(chosen)} of {len(opened)} images{trace}?", abort=True, err=True)
    removed = opened.delete(chosen, purge=purge)
    if json:
        print_json({"removed": removed, "purged": purge, "version": opened.version})
    else:
        console().print(f"{removed} removed{', purged' if purge else ''}, {len(opened)} left")
