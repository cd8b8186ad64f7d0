"""`retrieval status`: what a collection holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app import options
from app.output import console, print_columns, print_json, printable


def status(
    collection: options.Collection,
    where: options.Where = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="List the files that failed, with reasons.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what a collection holds: images, spaces, version, failures, disk use.

    Example: `retrieval status -c photos.lance --failures`
    """
    import retrieval

    facts = retrieval.open(collection).status(where)
    if not failures:
        facts["failures"] = len(facts["failures"])
    if json:
        print_json(facts)
    elif failures:
        _print_failures(facts["failures"])
    else:
        _print_status(facts)


def _print_failures(rows: list[dict[str, Any]]) -> None:
    if not rows:
        console().print("no failures")
        return
    cells = [("stage", "kind", "file", "reason")]
    cells += [(r["stage"], r["kind"], printable(r["uri"]), printable(r["reason"])) for r in rows]
    print_columns(cells)


def _print_status(facts: dict[str, Any]) -> None:
    out = console()
    matching = f", {facts['matching']} of them match" if "matching" in facts else ""
    out.print(f"{facts['uri']}: {facts['images']} images{matching}, version {facts['version']}")
    size = facts["size_bytes"]
    disk = "" if size is None else f", {size / 1e6:.1f} MB on disk"
    out.print(f"{facts['failures']} failures{disk}")
    out.print(f"columns for --where: {', '.join(facts['columns'])}")
    rows = [("space", "encoder", "derived as", "dim", "vectors", "computed by", "holds")]
    rows += [
        (
            space["name"],
            space["encoder"],
            f"{space['pooling'].rpartition('|')[2]} of {space['base']}" if space["base"] else "",
            str(space["dim"]),
            str(space["vectors"]),
            ", ".join(space["runtimes"]),
            " and ".join(space["modalities"]),
        )
        for space in facts["spaces"]
    ]
    if len(rows) > 1:
        print_columns(rows, right={3, 4})
    _print_made(facts["made"])
    indexes = [("index", "space", "rows", "behind", "ann_recall@10", "one query", "bytes a row")]
    for space in facts["spaces"]:
        indexes += [_index_row(space["name"], index) for index in space["indexes"]]
    if len(indexes) > 1:
        out.print()
        print_columns(indexes, right={2, 3, 4, 5, 6})
    elif len(rows) > 1:
        out.print("no index: every search compares all vectors, which is exact")


def _print_made(columns: list[dict[str, Any]]) -> None:
    if not columns:
        return
    rows = [("column", "made by", "of", "at", "outdated")]
    for made in columns:
        outdated = "unfinished" if made["version"] == 0 else str(made["outdated"] or "")
        source = made["space"] or "thumbnails"
        rows.append((made["name"], made["made_by"], source, made["created_at"], outdated))
    console().print()
    print_columns(rows, right={4})


def _index_row(space: str, index: dict[str, Any]) -> tuple[str, str, str, str, str, str, str]:
    measured = index["measured"]
    return (
        index["kind"],
        space,
        f"{index['rows']}",
        f"{index['behind']}",
        f"{measured['ann_recall_at_10']:.3f} ({measured['low']:.3f}–{measured['high']:.3f})",
        f"{measured['latency_ms']:.2f} ms",
        f"{measured['bytes_per_vector']:.0f}",
    )
