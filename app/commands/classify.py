"""`retrieval classify`: what pictures are, by the labelled images that they are most like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from app import options
from app.commands import zero_shot
from app.output import note, print_columns, print_json, printable
from app.progress import bar

if TYPE_CHECKING:
    from retrieval.query.classify.predictions import Predictions

_SHOWN = 3  # neighbours of each image

Labels = Annotated[str, typer.Option(metavar="COLUMN", help="The column that holds the classes.")]
Balanced = Annotated[
    bool, typer.Option("--balanced", help="Divide votes by the number of exemplars of their class.")
]
Temperature = Annotated[
    float, typer.Option(metavar="T", help="Of the votes; smaller: the nearest decide.")
]
Coverage = Annotated[
    float, typer.Option(metavar="F", help="How often the set of classes is to hold the true one.")
]


class _How(TypedDict):
    labels: str
    k: int
    temperature: float
    balanced: bool
    where: str | None
    space: str | None
    coverage: float
    min_accuracy: float | None


def classify(
    collection: options.Collection,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE…]", help="New pictures.")
    ] = None,
    labels: Labels = "label",
    stored: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Images of the collection instead: 'label is null'."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 20,
    temperature: Temperature = 0.07,
    balanced: Balanced = False,
    where: options.Where = None,
    space: Annotated[str | None, typer.Option(help="Compare in this space.")] = None,
    coverage: Coverage = 0.9,
    min_accuracy: Annotated[
        float | None,
        typer.Option(metavar="F", help="Answer where exemplars reached this accuracy."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="With --stored: write columns predicted_COLUMN….")
    ] = False,
    words: zero_shot.Words = None,
    templates: zero_shot.Templates = None,
    multi_label: zero_shot.MultiLabel = False,
    sheet: zero_shot.Sheet = None,
    json: options.Json = False,
) -> None:
    """Say what pictures are by the labelled images that they are most like, and how sure that is.

    --where tells which labelled images are exemplars. --zero-shot names pictures by words instead,
    or all images of the collection, and tells where words and eyes disagree.

    Example: `retrieval classify new.jpg -c photos.lance --labels label`
    """
    if words:
        named = zero_shot.Naming(
            words, templates, multi_label, zero_shot.one_filter(stored, where), space, apply
        )
        zero_shot.zero_shot(collection, named, images or [], sheet=sheet, json=json)
        return
    zero_shot.refuse_without_words(templates, multi_label, sheet)
    how = _How(
        labels=labels,
        k=k,
        temperature=temperature,
        balanced=balanced,
        where=where,
        space=space,
        coverage=coverage,
        min_accuracy=min_accuracy,
    )
    found = _classified(collection, images or [], stored, apply, how, shown=not json)
    if json:
        print_json(_as_json(found))
        return
    _print(found)
    if apply:
        note(f'find them with --where "predicted_{labels} = …"')


def _classified(
    place: str, images: list[str], stored: str | None, apply: bool, how: _How, *, shown: bool
) -> Predictions:
    import retrieval
    from retrieval.errors import QueryError

    if bool(images) == (stored is not None):
        raise QueryError("give pictures to classify, or --stored EXPR for those of the collection")
    if apply and stored is None:
        raise QueryError("--apply writes what was found of --stored images: add it")
    opened = retrieval.open(place)
    if stored is None:
        return opened.classify(images, **how)
    with bar("classifying", shown=shown) as tell:
        return opened.classify_stored(stored, apply=apply, tell=tell, **how)


def _as_json(found: Predictions) -> dict[str, Any]:
    from dataclasses import asdict

    predictions = [
        {
            "uri": each.uri,
            "image_id": each.image_id,
            "label": each.label,
            "confidence": each.confidence,
            "abstained": each.abstained,
            "reason": each.reason,
            "labels": each.labels,
            "neighbors": [
                {
                    "image_id": near.image.image_id,
                    "uri": near.image.uri,
                    "label": near.label,
                    "score": near.score,
                    "weight": near.weight,
                }
                for near in each.neighbors
            ],
        }
        for each in found
    ]
    return {
        "predictions": predictions,
        "exemplars": found.exemplars,
        "unlabelled": found.unlabelled,
        "k": found.k,
        "calibration": found.trust and finite(asdict(found.trust)),
        "space": found.space,
        "version": found.version,
    }


def finite(facts: dict[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them: what is infinite is null."""
    return {
        name: None if value in (float("inf"), float("-inf")) else value
        for name, value in facts.items()
    }


def _print(found: Predictions) -> None:
    rows = [("label", "sure", "", "picture", "most like")]
    for each in found:
        near = ", ".join(f"{n.label} {n.score:.2f}" for n in each.neighbors[:_SHOWN])
        answer = "abstained" if each.abstained else ""
        told = (str(each.label), f"{each.confidence:.2f}", answer, each.uri or "", near)
        rows.append(tuple(printable(text).replace("\n", " ") for text in told))  # type: ignore[arg-type]
    print_columns(rows, right={1})
    for each in found:
        if each.reason:
            note(f"{printable(each.uri or '')}: {printable(each.reason)}")
    left = f"; {found.unlabelled} unlabelled images are none" if found.unlabelled else ""
    note(f"by {found.k} neighbours of {found.exemplars} exemplars in {found.space}{left}")
    if found.trust is None:
        note("too few exemplars to calibrate confidence: it is the share of the votes")
