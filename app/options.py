"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Collection = Annotated[
    str,
    typer.Option(
        "--collection", "-c", metavar="COLLECTION", help="The collection: a directory or URI."
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="EXPR", help="Only images for which this holds: \"label = 'dress'\"."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="fp32|auto|…",
        help="How encoders run; auto takes the fastest that changes similarities by ≤ 0.005.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
