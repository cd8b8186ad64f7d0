"""`retrieval evaluate`: how good the answers are, measured on the collection itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app import options
from app.output import note, print_columns, print_json

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
