"""`retrieval doctor`: what works here, and what to do about what does not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.output import console, print_json


def doctor(
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Also check that its images find themselves."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation and, with -c, a collection; exits with 1 if something is broken.

    Example: `retrieval doctor -c photos.lance`
    """
    from app.diagnosis import diagnose

    findings = diagnose(collection)
    if json:
        print_json({"checks": findings, "ok": _healthy(findings)})
    else:
        out = console()
        marks = {"ok": "ok     ", "missing": "absent ", "broken": "BROKEN "}
        for finding in findings:
            out.print(f"{marks[finding['state']]} {finding['name']}: {finding['says']}")
    if not _healthy(findings):
        raise typer.Exit(1)


def _healthy(findings: list[dict[str, Any]]) -> bool:
    return all(finding["state"] != "broken" for finding in findings)
