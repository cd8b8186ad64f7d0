"""`retrieval evaluate`: how good the answers are, measured on the collection itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from app import options, same
from app.commands import classify
from app.output import console, note, print_columns, print_json
from app.progress import bar

app = typer.Typer(
    no_args_is_help=True, help="Measure how good the answers are, on the collection itself."
)


@app.command("index")
def index(
    collection: options.Collection,
    space: Annotated[str | None, typer.Option(help="Only this space.")] = None,
    json: options.Json = False,
) -> None:
    """Measure every index as it is now, with all that came since it was made.

    Queries are made of the stored vectors; the truth is a comparison with all of them.

    Example: `retrieval evaluate index -c photos.lance`
    """
    import retrieval

    opened = retrieval.open(collection)
    found: list[dict[str, Any]] = []
    for name in opened.spaces:
        if space not in (None, name):
            continue
        for kind in [facts["kind"] for facts in opened.indexes(name)]:
            measured = opened.measure_index(name, kind).as_json()
            measured.pop("effort")
            found.append({"space": name, "kind": kind, **measured})
    if space is not None:
        opened.store.space(space)
    if json:
        print_json({"indexes": found})
    elif not found:
        note("no index: every search compares all vectors, which is exact")
    else:
        rows = [("index", "space", "ann_recall@10", "95 % interval", "one query", "slowest 5 %")]
        rows += [
            (
                each["kind"],
                each["space"],
                f"{each['ann_recall_at_10']:.4f}",
                f"{each['low']:.4f}–{each['high']:.4f}",
                f"{each['latency_ms']:.2f} ms",
                f"{each['latency_p95_ms']:.2f} ms",
            )
            for each in found
        ]
        print_columns(rows, right={2, 3, 4, 5})


@app.command("dedup")
def dedup(
    collection: options.Collection,
    threshold: same.Bar = "auto",
    tier: same.Tiers = None,
    space: same.Space = None,
    where: options.Where = None,
    json: options.Json = False,
) -> None:
    """Measure how well duplicates would be found, on copies made of the collection's images.

    They are other copies than those that the threshold is fitted to, and made anew each time.

    Example: `retrieval evaluate dedup -c photos.lance --threshold 0.9`
    """
    import retrieval
    from retrieval.errors import QueryError

    opened = retrieval.open(collection)
    tiers = same.tiers_of(tier)
    if set(tiers) == {"exact"}:
        raise QueryError("the same bytes are always found: there is nothing to measure")
    at, note_of_fit = same.threshold_of(opened, threshold, tiers=tiers), ""
    with bar("fitting and measuring", shown=not json) as tell:
        if not isinstance(at, float):
            fitted = opened.fit_threshold(space, tiers=tiers, where=where, tell=tell)
            at, note_of_fit = fitted.threshold, fitted.note
        fit = opened.fit_threshold(space, tiers=tiers, where=where, at=at, seed=1, tell=tell)
    fit = replace(fit, note=fit.note or note_of_fit)
    if json:
        print_json(fit.as_json())
        return
    console().print(f"threshold {fit.threshold:.3f}: {same.fit_in_words(fit)}")
    if fit.by_transform:
        rows = [("copy", "recall", "95 % interval")]
        for name, share in fit.by_transform.items():
            rows.append((name, f"{share.value:.3f}", f"{share.low:.3f}–{share.high:.3f}"))
        print_columns(rows, right={1})
    if fit.candidates_per_image is not None:
        note(f"an image is compared with {fit.candidates_per_image:.1f} others on average")


@app.command("knn")
def knn(
    collection: options.Collection,
    labels: classify.Labels = "label",
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 20,
    temperature: classify.Temperature = 0.07,
    balanced: classify.Balanced = False,
    where: options.Where = None,
    space: Annotated[str | None, typer.Option(help="Compare in this space.")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Fit a linear classifier, too, as a second opinion.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure how well labelled images tell each other's class: each by all others.

    Example: `retrieval evaluate knn -c photos.lance --labels label`
    """
    import retrieval
    from app.knn_report import as_json, print_knn

    opened = retrieval.open(collection)
    with bar("comparing", shown=not json) as tell:
        found = opened.evaluate_knn(
            labels,
            k=k,
            temperature=temperature,
            balanced=balanced,
            where=where,
            space=space,
            tell=tell,
        )
    second = opened.linear_probe(labels, where=where, space=space) if probe else None
    if json:
        print_json(as_json(found, second))
    else:
        print_knn(found, second)
