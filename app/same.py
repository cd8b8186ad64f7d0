"""What the commands about duplicates share: options, the threshold, and how answers look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.output import console, note, printable

if TYPE_CHECKING:
    from retrieval import Collection
    from retrieval.query.duplicates.calls import Threshold
    from retrieval.query.duplicates.fit import Fit
    from retrieval.query.duplicates.found import Asked, Duplicates
    from retrieval.query.duplicates.tiers import Tier
    from retrieval.query.shares import Share
    from retrieval.types import ImageRecord

Bar = Annotated[
    str,
    typer.Option(
        "--threshold", metavar="auto|F", help="Cosine from which on two images are compared."
    ),
]
Labelled = Annotated[
    str | None,
    typer.Option(metavar="FILE.csv", help="Fit the threshold to pairs: columns a, b, same."),
]
Tiers = Annotated[
    list[str] | None,
    typer.Option("--tier", metavar="NAME", help="exact, copy, edited, scene or concept."),
]
Space = Annotated[str | None, typer.Option(metavar="NAME", help="Compare in this space.")]
Sheet = Annotated[
    str | None, typer.Option(metavar="OUT.png", help="Write a picture of the answer to look at.")
]

SHOWN = 20
"""Groups, or pairs, that people are told of."""

_MEMBERS = 8


def tiers_of(names: Sequence[str] | None) -> tuple[Tier, ...]:
    """The tiers asked for, else those that people act on; the library refuses all others."""
    from retrieval.query.duplicates.tiers import SAME

    return tuple(names) if names else SAME  # type: ignore[arg-type]


def threshold_of(
    opened: Collection,
    given: str,
    *,
    tiers: Sequence[Tier],
    labelled: str | None = None,
    space: str | None = None,
) -> Threshold:
    """The number that was given; else what labels say, or ``auto``.

    Raises:
        QueryError: if it is neither a number nor ``auto``, or both a number and labels are given.
    """
    from retrieval.errors import QueryError

    if given != "auto":
        if labelled is not None:
            raise QueryError("--threshold and --labelled both say what to take: choose one")
        try:
            return float(given)
        except ValueError:
            raise QueryError(f"a threshold is a number or auto, not {given!r}") from None
    if labelled is not None:
        from retrieval.query.duplicates.labels import read_labels

        return opened.fit_labelled(read_labels(labelled, opened), space, tiers=tiers)
    return "auto"


def check_sheet(path: str | None) -> None:
    """Refuse a name that no picture can have, or a folder that is not there, before any work.

    Raises:
        QueryError: naming the endings there are, or the folder.
    """
    from pathlib import Path

    from retrieval.errors import QueryError

    if path and not path.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise QueryError(f"a sheet is a .png, .jpg or .webp file, not {path!r}")
    if path and not Path(path).parent.is_dir():
        raise QueryError(
            f"there is no folder {str(Path(path).parent)!r} for a sheet: make it first"
        )


def groups_as_json(found: Duplicates) -> list[dict[str, Any]]:
    """The groups for machines."""
    return [
        {
            "kind": group.kind,
            "keep": group.keep.uri,
            "members": [
                {
                    "uri": member.image.uri,
                    "score": member.score,
                    "kind": member.kind,
                    "why": member.why,
                }
                for member in group.members
            ],
        }
        for group in found
    ]


def asked_as_json(asked: Asked) -> dict[str, Any]:
    """What an answer stood on, for machines."""
    from dataclasses import asdict

    return {
        "threshold": asked.threshold,
        "space": asked.space,
        "fit": None if asked.fit is None else asked.fit.as_json(),
        "recall": None if asked.recall is None else asdict(asked.recall),
        "approximate": asked.approximate,
        "no_vector": asked.no_vector,
        "no_thumbnail": asked.no_thumbnail,
        "version": asked.version,
    }


def tell_threshold(asked: Asked) -> None:
    """What an answer stood on, for people."""
    if asked.threshold is None:
        note("only bytes were compared")
        return
    said = f"threshold {asked.threshold:.3f} in {asked.space}"
    note(said if asked.fit is None else f"{said}: {fit_in_words(asked.fit)}")
    if asked.approximate:
        note(f"of the pairs above it {share_in_words(asked.recall)} were looked at")
    if asked.no_vector:
        none = f"{asked.no_vector} images have no vector in {asked.space}"
        note(f"{none}: only their bytes were compared; index again")
    if asked.no_thumbnail:
        note(f"{asked.no_thumbnail} pairs have no thumbnail to compare: only their bytes were")


def fit_in_words(fit: Fit) -> str:
    """What a fitted threshold is expected to do."""
    known = "labelled pairs" if fit.source == "labels" else "copies made of its images"
    words = [
        f"expected precision {share_in_words(fit.precision)}",
        f"recall {share_in_words(fit.recall)} of {known}",
    ]
    if fit.note:
        words.append(fit.note)
    return ", ".join(words)


def share_in_words(share: Share | None) -> str:
    """A share with its interval."""
    return "unknown" if share is None else f"{share.value:.3f} ({share.low:.3f}–{share.high:.3f})"


def print_groups(found: Duplicates) -> None:
    """The first groups for people: what stays, and below it what would go and why."""
    out = console()
    for group in found.groups[:SHOWN]:
        out.print()
        out.print(f"{'keep':6}  {facts_of(group.keep)}  {path_in_line(group.keep)}")
        for member in group.members[:_MEMBERS]:
            why = f"{member.kind:6}  {member.score:.3f}  {member.why}"
            out.print(f"{why}  {facts_of(member.image)}  {path_in_line(member.image)}")
        if (more := len(group.members) - _MEMBERS) > 0:
            out.print(f"{'':6}  and {more} more")
    if (more := len(found) - SHOWN) > 0:
        note(f"{more} more groups; --json and --plan FILE give all")


def facts_of(image: ImageRecord) -> str:
    """What the keep policy goes by, in short."""
    return f"{image.width}×{image.height}  {size_in_words(image.size_bytes)}"


def path_in_line(image: ImageRecord) -> str:
    """The whole path on one line."""
    return printable(image.uri).replace("\n", "\\n")


def size_in_words(size_bytes: int) -> str:
    """A size for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
