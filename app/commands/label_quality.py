"""`retrieval mislabels`: given labels that are likely wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import options, same
from app.output import console, note, print_columns, print_json, printable

if TYPE_CHECKING:
    from retrieval.query.label_quality.found import LabelIssues

_SHOWN = 50


def mislabels(
    collection: options.Collection,
    labels: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column of the labels.")
    ] = "label",
    where: options.Where = None,
    space: Annotated[str | None, typer.Option(help="Compare in this space.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the columns label_issue and label_suggested.")
    ] = False,
    sheet: same.Sheet = None,
    json: options.Json = False,
) -> None:
    """Find labels that are likely wrong, with the images that speak against them.

    Example: `retrieval mislabels -c shop.lance --labels label --sheet wrong.png`
    """
    import retrieval
    from app.progress import bar

    same.check_sheet(sheet)
    opened = retrieval.open(collection)
    with bar("comparing", not json) as tell:
        found = opened.mislabelled(labels, where=where, space=space, apply=apply, tell=tell)
    if sheet is not None:
        from app.label_sheets import issues_sheet

        issues_sheet(opened, found).save(sheet)
    if json:
        print_json(found.as_json())
    else:
        _print(found, collection, apply)


def _print(found: LabelIssues, collection: str, applied: bool) -> None:
    if found:
        rows = [("suspicion", "given", "suggested", "like it", "id", "path")]
        for issue in found[:_SHOWN]:
            near = ", ".join(f"{each.label} {each.score:.2f}" for each in issue.neighbors)
            told = (str(issue.given), str(issue.suggested), near, str(issue.image_id), issue.uri)
            cells = (printable(text).replace("\n", " ") for text in told)
            rows.append((f"{issue.suspicion:.3f}", *cells))  # type: ignore[arg-type]
        print_columns(rows, right={0, 4})
    if len(found) > _SHOWN:
        note(f"and {len(found) - _SHOWN} more; --json has all")
    judged = f"{len(found)} of {found.images} labels in {found.column!r} are likely wrong"
    console().print(f"{judged}, told by {found.space}")
    if found.unlabelled:
        note(f"{found.unlabelled} images have no label and took no part")
    if found.single:
        names = ", ".join(str(name) for name in found.single[:5])
        note(f"labels of one image only cannot be judged: {printable(names)}")
    if applied and found:
        note("see them again with --where 'label_issue >= 0.9', as in retrieval export")
