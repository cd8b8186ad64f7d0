"""`retrieval dedup`: what is the same, why, what to keep, and how to undo it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from app import options, same
from app.output import console, note, print_json, printable
from app.progress import bar

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.duplicates.found import Duplicates

_Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="What stays: resolution, size, oldest, folder:PATH, split:NAME; the first decides.",
    ),
]
_Plan = Annotated[str | None, typer.Option(metavar="FILE", help="Write what would go (Parquet).")]


def dedup(
    collection: options.Collection,
    threshold: same.Bar = "auto",
    labelled: same.Labelled = None,
    tier: same.Tiers = None,
    keep: _Keep = None,
    space: same.Space = None,
    where: options.Where = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search the index instead of comparing all.")
    ] = False,
    plan: _Plan = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Carry out the plan that is there: to quarantine.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Bring back all that a plan moved.")] = False,
    sheet: same.Sheet = None,
    json: options.Json = False,
) -> None:
    """Find duplicates: exact, near and edited ones, and what to keep of each group.

    Nothing is touched: `--plan FILE` writes down what would go, `--plan FILE --apply` moves those
    files to the folder FILE.quarantine, and `--plan FILE --undo` brings everything back.

    Example: `retrieval dedup -c photos.lance --keep resolution --plan plan.parquet`
    """
    import retrieval
    from retrieval.errors import QueryError

    if apply or undo:
        if plan is None or (apply and undo):
            raise QueryError("say --plan FILE with either --apply or --undo")
        given = {
            **{"--threshold": threshold != "auto", "--labelled": labelled, "--tier": tier},
            **{"--keep": keep, "--space": space, "--where": where, "--sheet": sheet},
            "--approximate": approximate,
        }
        if said := [name for name, value in given.items() if value]:
            raise QueryError(f"{said[0]} changes nothing of a plan that is there: leave it out")
        _carry_out(collection, plan, undo=undo, json=json)
        return
    from retrieval.query.duplicates.policy import DEFAULT, check_rules

    same.check_sheet(sheet)  # all this before the long work
    check_rules(keep or DEFAULT)
    if plan is not None:
        from indexers.quarantine import check_place

        check_place(plan)
    opened = retrieval.open(collection)
    tiers = same.tiers_of(tier)
    cosine = same.threshold_of(opened, threshold, tiers=tiers, labelled=labelled, space=space)
    with bar("fitting and comparing", shown=not json) as tell:
        found = opened.duplicates(
            space=space,
            threshold=cosine,
            tiers=tiers,
            keep=keep or DEFAULT,
            where=where,
            approximate=approximate,
            tell=tell,
        )
    _answer(opened, found, plan=plan, sheet=sheet, json=json)


def _answer(
    opened: Collection, found: Duplicates, *, plan: str | None, sheet: str | None, json: bool
) -> None:
    if plan is not None:
        from indexers.quarantine import write_plan

        write_plan(found.to_arrow(), plan)
    if sheet:
        from app.pairs_sheet import groups_sheet

        groups_sheet(opened, found).save(sheet)
    if json:
        print_json({"groups": same.groups_as_json(found), **same.asked_as_json(found.asked)})
        return
    _print(found)
    if plan is not None:
        note(f"plan: {printable(plan)}; carry it out with --plan {printable(plan)} --apply")
    if sheet:
        note(f"sheet: {printable(sheet)}")


def _print(found: Duplicates) -> None:
    going = [member for group in found for member in group.members]
    size = same.size_in_words(sum(member.image.size_bytes for member in going))
    kinds = Counter(member.kind for member in going)
    by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    said = f"{len(found)} groups: {len(going)} images would go, {size}"
    console().print(f"{said} ({by_kind})" if going else "no duplicates")
    same.tell_threshold(found.asked)
    same.print_groups(found)


def _carry_out(collection: str, plan: str, *, undo: bool, json: bool) -> None:
    import retrieval
    from indexers import quarantine

    opened = retrieval.open(collection)
    work = quarantine.undo if undo else quarantine.apply
    with bar("undoing" if undo else "moving", shown=not json) as tell:
        report = work(plan, opened, tell=tell)
    if json:
        print_json(report.as_json())
    else:
        size = same.size_in_words(report.bytes)
        done = f"{report.restored} restored" if undo else f"{report.moved} moved to quarantine"
        console().print(f"{done}, {size}; {len(report.refused)} refused")
        for uri, reason in report.refused:
            note(f"{printable(uri)}: {reason}")
        if report.moved:
            note(f"they are in {printable(report.quarantine)}")
            note(f"bring everything back with --plan {printable(plan)} --undo")
    if report.refused:
        raise typer.Exit(1)
