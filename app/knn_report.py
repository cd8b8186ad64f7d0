"""What `evaluate knn` shows: figures, classes, confusions and the sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.commands.classify import finite
from app.output import console, note, print_columns, printable

if TYPE_CHECKING:
    from retrieval.query.classify.leave_one_out import LeaveOneOut
    from retrieval.query.classify.linear_probe import LinearProbe
    from retrieval.query.shares import Share

_CONFUSED = 10


def as_json(found: LeaveOneOut, probe: LinearProbe | None) -> dict[str, Any]:
    """For machines."""
    facts = found.as_json()
    confused = [
        {"true": true, "told": told, "count": count} for true, told, count in found.confused()
    ]
    return {
        **facts,
        "trust": facts["trust"] and finite(facts["trust"]),
        "confused": confused,
        "probe": probe and probe.facts(),
    }


def print_knn(found: LeaveOneOut, probe: LinearProbe | None) -> None:
    """For people."""
    out = console()
    out.print(f"{found.exemplars} exemplars of {len(found.classes)} classes in {found.space}")
    out.print(f"accuracy           {_with_interval(found.accuracy)}")
    out.print(f"balanced accuracy  {_with_interval(found.balanced_accuracy)}")
    if found.twins:
        rest = found.accuracy_without_twins
        told = _with_interval(rest) if rest else "none are left"
        out.print(f"without {found.twins} that have the same bytes as another: {told}")
    if probe is not None:
        out.print(f"a linear classifier, cross-validated: {probe.accuracy:.3f} (C = {probe.c:g})")
    out.print()
    rows = [("class", "images", "precision", "recall")]
    for each in found.classes:
        precision = "" if each.precision is None else f"{each.precision:.3f}"
        name = printable(str(each.label)).replace("\n", " ")
        rows.append((name, str(each.support), precision, f"{each.recall:.3f}"))
    print_columns(rows, right={1, 2, 3})
    if confused := found.confused(_CONFUSED):
        out.print()
        pairs = [("is", "is told as", "times")]
        pairs += [(printable(str(a)), printable(str(b)), str(n)) for a, b, n in confused]
        print_columns(pairs, right={2})
    out.print()
    _print_sweep(found)
    _notes(found)


def _print_sweep(found: LeaveOneOut) -> None:
    ks = sorted({each.k for each in found.sweep})
    warm = sorted({each.temperature for each in found.sweep})
    accuracy = {(each.k, each.temperature): each.accuracy for each in found.sweep}
    rows = [("accuracy", *(f"T = {t:g}" for t in warm))]
    rows += [(f"k = {k}", *(f"{accuracy[k, t]:.3f}" for t in warm)) for k in ks]
    print_columns(rows, right=set(range(1, len(warm) + 1)))
    best = found.best
    console().print(f"best: k = {best.k}, T = {best.temperature:g}: {best.accuracy:.3f}")


def _notes(found: LeaveOneOut) -> None:
    if found.unlabelled:
        note(f"{found.unlabelled} images have no label and take no part")
    if found.no_vector:
        note(f"{found.no_vector} labelled images have no vector in {found.space}: index again")
    if found.alone:
        note(f"{found.alone} have no other of their class and count as wrong")
    trust = found.trust
    if trust is None:
        note("too few exemplars to calibrate confidence")
    else:
        before, after = trust.error_before, trust.error_after
        note(f"calibration error of the votes {before:.3f}, of the confidence {after:.3f}")


def _with_interval(share: Share) -> str:
    return f"{share.value:.3f} (95 % interval {share.low:.3f}–{share.high:.3f})"
