"""`retrieval search`: find images by words, by example, by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import hits_as_json, note, print_hits, print_json, print_paths

if TYPE_CHECKING:
    from app.question import Question
    from retrieval import Collection, Hits


_Index = Annotated[str | None, typer.Option(metavar="KIND", help="Ask this index; exact for none.")]
_Diverse = Annotated[
    float, typer.Option(min=0, max=1, help="Prefer hits that are unlike each other.")
]
_Rerank = Annotated[
    str | None, typer.Option(metavar="SPACE", help="Let a second space have a say in the order.")
]
_Feedback = Annotated[
    int, typer.Option(min=0, metavar="N", help="Search again near the first N hits.")
]


def search(
    collection: options.Collection,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Plain words.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Search by this picture.")
    ] = None,
    image_id: Annotated[
        int | None, typer.Option("--id", metavar="ID", help="Search by an image of the collection.")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="Move away from these words.")
    ] = None,
    where: options.Where = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 10,
    space: Annotated[str | None, typer.Option(help="Search this space.")] = None,
    index: _Index = None,
    diverse: _Diverse = 0.0,
    rerank: _Rerank = None,
    feedback: _Feedback = 0,
    json: options.Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")] = False,
    sheet: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Write a contact sheet to look at.")
    ] = None,
) -> None:
    """Find images by words, by example, by id, or by a mix of them.

    Example: `retrieval search "a red car" -c photos.lance --not "a truck" -k 20`
    """
    import os

    from app import warm
    from app.question import Question, absolute
    from retrieval.errors import QueryError

    if json and paths:
        raise QueryError("--json and --paths are two forms of one answer: choose one")
    if sheet and not sheet.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise QueryError(f"a contact sheet is a .png, .jpg or .webp file, not {sheet!r}")
    question = Question(
        collection=absolute(collection),
        text=text,
        images=[os.path.abspath(path) for path in image or ()],
        image_id=image_id,
        negative=list(negative or ()),
        where=where,
        k=k,
        space=space,
        index=index,
        diversity=diverse,
        rerank=rerank,
        feedback=feedback,
    )
    answer = None if sheet else warm.ask(question)
    if answer is None:
        opened, hits = _search_here(question)
        answer = hits_as_json(hits)
    if json:
        print_json(answer)
    elif paths:
        print_paths(answer)
    elif answer["hits"]:
        print_hits(answer)
    else:
        note("nothing found: the collection has no image that fits")
    if sheet:
        from app.sheet import contact_sheet

        contact_sheet(opened, hits, text or "").save(sheet)
        note(f"contact sheet: {sheet}")


def _search_here(question: Question) -> tuple[Collection, Hits]:
    import retrieval
    from app.question import answer

    collection = retrieval.open(question["collection"])
    return collection, answer(collection, question)
