"""`retrieval anomaly`: what is odd about a picture, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options
from app.output import Answer, complain, note, print_columns, print_json, printable

if TYPE_CHECKING:
    from app.odd import Drawn
    from retrieval.query.anomaly.found import Anomalies


def anomaly(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Pictures to judge.")],
    collection: options.Collection,
    normal: Annotated[
        str, typer.Option(metavar="EXPR", help="Which images are normal: \"split = 'train'\".")
    ],
    heatmaps: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write overlays, arrays and a sheet there.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Look with this space's encoder.")] = None,
    patches: Annotated[
        bool, typer.Option("--patches/--no-patches", help="Place by place, or whole pictures.")
    ] = True,
    tiles: Annotated[
        int, typer.Option(metavar="N", help="Look at N × N parts of a picture one by one.")
    ] = 3,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Normal images are normal in any quarter turn.")
    ] = False,
    false_alarm_rate: Annotated[
        float, typer.Option(metavar="F", help="Share of normal pictures that may be called odd.")
    ] = 0.05,
    json: options.Json = False,
) -> None:
    """Say how unlike the normal images of a collection pictures are, and where.

    More is worse. The first call looks at all normal images; what it learns is kept in the
    collection. Exit code 1 if a picture could not be read; the others are answered.

    Example: `retrieval anomaly new/*.jpg -c parts.lance --normal "split = 'train'" --heatmaps out`
    """
    from pathlib import Path

    import retrieval
    from app.progress import bar
    from retrieval.errors import QueryError

    if heatmaps is not None and not patches:
        raise QueryError("a heatmap is made of patches: leave out --no-patches or --heatmaps")
    with bar("looking", shown=not json) as tell:
        found = retrieval.open(collection).anomaly(
            images,
            normal,
            space=space,
            patches=patches,
            tiles=tiles,
            rotate=rotate,
            false_alarm_rate=false_alarm_rate,
            tell=tell,
        )
    drawn: list[Drawn] = []
    if heatmaps is not None and all(one.patches is not None for one in found) and len(found):
        from app.odd import SHEET, write_heatmaps

        with bar("drawing", shown=not json) as tell:
            drawn = write_heatmaps(Path(heatmaps), found, tell)
        note(f"heatmaps: {Path(heatmaps) / SHEET}")
    if json:
        print_json(_as_json(found, drawn))
    else:
        _print(found)
    if found.note:
        note(found.note)
    for failure in found.failures:
        complain(f"{failure.uri}: {failure.reason}")
    if found.failures:
        raise typer.Exit(1)


def _as_json(found: Anomalies, drawn: list[Drawn]) -> Answer:
    files: list[Drawn | None] = [*drawn] or [None] * len(found)
    return {
        "results": [
            {
                "uri": one.uri,
                "anomaly_score": one.anomaly_score,
                "threshold": one.threshold,
                "is_anomaly": one.is_anomaly,
                "image_score": one.image_score,
                "heatmap": None if file is None else str(file.array),
                "overlay": None if file is None else str(file.overlay),
            }
            for one, file in zip(found, files, strict=True)
        ],
        "failures": [{"uri": one.uri, "reason": one.reason} for one in found.failures],
        "space": found.space,
        "normals": found.normals,
        "false_alarm_rate": found.limit.false_alarm_rate,
        "image_threshold": found.image_limit.threshold,
        "note": found.note,
    }


def _print(found: Anomalies) -> None:
    rows = [("anomaly", "threshold", "", "picture")]
    for one in found:
        said = "" if one.is_anomaly is None else ("odd" if one.is_anomaly else "normal")
        edge = "" if one.threshold is None else f"{one.threshold:.4f}"
        name = printable(one.uri).replace("\n", "\\n")
        rows.append((f"{one.anomaly_score:.4f}", edge, said, name))
    print_columns(rows, right={0, 1})
