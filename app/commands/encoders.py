"""`retrieval encoders`: which encoders there are, and which to choose."""

from __future__ import annotations

from dataclasses import asdict

from app import options
from app.output import console, print_columns, print_json


def encoders(json: options.Json = False) -> None:
    """List the encoders, compare them, and say which to choose.

    Example: `retrieval index ~/Pictures -c photos.lance --encoder siglip2-base`
    """
    from retrieval import settings
    from retrieval.encoders import specs

    known = specs()
    if json:
        print_json({"encoders": [asdict(spec) for spec in known.values()]})
        return
    rows = [("name", "family", "dim", "holds", "MB", "licence", "good for")]
    rows += [
        (
            spec.name,
            spec.family,
            str(spec.dim),
            "images, text" if "text" in spec.modalities else "images",
            f"{spec.size_mb:.0f}",
            spec.licence + ("*" if spec.terms else ""),
            spec.summary,
        )
        for spec in known.values()
    ]
    print_columns(rows, right={2, 4})
    out = console()
    out.print("")
    out.print("To search in words choose one that holds text; for look-alikes a DINOv2.")
    out.print(
        f"A new collection takes {' + '.join(settings.load().encoders)} unless --encoder says"
    )
    out.print("otherwise; RETRIEVAL_ENCODERS changes the default.")
    for spec in known.values():
        if spec.terms:
            out.print(f"* {spec.name}: {spec.terms}.")
