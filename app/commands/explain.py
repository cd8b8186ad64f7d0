"""`retrieval explain`: where an image is like what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import Answer, console, note, print_json, printable

if TYPE_CHECKING:
    from retrieval.query.explain import Explanation


def explain(
    collection: options.Collection,
    image_id: Annotated[int, typer.Argument(metavar="ID", help="The image to explain.")],
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Plain words.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="The picture that was searched by.")
    ] = None,
    query_id: Annotated[
        int | None, typer.Option("--id", metavar="QUERY_ID", help="The image searched by.")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What was moved away from.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Explain in this space.")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="PICTURE", help="Where to draw it; why.png, or nowhere with --json."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show why an image matched: a map of where it is like the query.

    Example: `retrieval explain 5137212402031 "a red car" -c photos.lance --out why.png`
    """
    import os

    import retrieval
    from app.heat import drawing, strongest
    from retrieval import Term
    from retrieval.errors import QueryError

    out = out or ("" if json else "why.png")
    if out and not out.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise QueryError(f"the map is a .png, .jpg or .webp file, not {out!r}")
    why = retrieval.open(collection).explain(
        image_id,
        text,
        query_id=query_id,
        terms=[Term(image=path) for path in image or ()],
        negative=list(negative or ()),
        space=space,
    )
    if json:
        print_json(_as_json(why))
    else:
        say = console().print
        say(f"score {why.score:.3f} in {why.space}: {printable(why.image.uri)}")
        best = (f"{name} ({value:.2f})" for name, value in strongest(why)[:3])
        say(f"strongest: {', '.join(best)}")
    for view in (why.view, why.query_view):
        if view is not None and view.note:
            note(view.note)
    if out:
        like = [f"like {os.path.basename(path)}" for path in image or ()]
        like += [f"like image {query_id}"] if query_id is not None else []
        words = [text or "", *like, *(f"without {words}" for words in negative or ())]
        drawing(why, " ".join(words).strip()).save(out)
        note(f"map: {out}")


def _as_json(why: Explanation) -> Answer:
    """The explanation for machines; the box in shares of the picture's width and height."""
    from app.heat import strongest

    width, height = why.view.picture.size
    left, top, right, bottom = why.view.box
    return {
        "image_id": why.image.image_id,
        "uri": why.image.uri,
        "score": why.score,
        "space": why.space,
        "grid": list(why.heat.shape),
        "heat": why.heat.tolist(),
        "box": [left / width, top / height, right / width, bottom / height],
        "strongest": [name for name, _ in strongest(why)[:3]],
        "note": why.view.note,
        "query_heat": None if why.query_heat is None else why.query_heat.tolist(),
    }
