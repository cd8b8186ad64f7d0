"""`retrieval classify --zero-shot`: what pictures are, by labels given in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import same
from app.output import console, note, print_columns, print_json, printable

if TYPE_CHECKING:
    from retrieval.query.zero_shot.found import ZeroShotResult

_SHOWN = 20

Words = Annotated[
    list[str] | None,
    typer.Option(
        "--zero-shot",
        metavar='"a,b,c"|@FILE',
        help="Labels in words: with commas, or one each time, or one a line of a file.",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE", help="With --zero-shot: plain, imagenet-7, imagenet-80, or a file."
    ),
]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="With --zero-shot: several labels may fit, or none.")
]


Sheet = Annotated[
    str | None,
    typer.Option(metavar="OUT.png", help="With --zero-shot: write a picture to look at."),
]


@dataclass(frozen=True, slots=True)
class Naming:
    """What is asked.

    Attributes:
        words: what `--zero-shot` was given.
        templates: name of a set, or a file.
        multi_label: whether several labels, or none, may fit one picture.
        where: only these stored images.
        space: whose encoder reads the labels.
        apply: whether to write columns.
    """

    words: Sequence[str]
    templates: str | None = None
    multi_label: bool = False
    where: str | None = None
    space: str | None = None
    apply: bool = False


def zero_shot(
    collection: str,
    asked: Naming,
    images: Sequence[str] = (),
    *,
    sheet: str | None = None,
    json: bool = False,
) -> None:
    """Name pictures, or all images of the collection, and tell what was found.

    Args:
        collection: its path or URI.
        asked: the labels, and how they are read.
        images: paths; empty for all stored images.
        sheet: file for a picture of the answer.
        json: print one JSON object.
    """
    import retrieval
    from app.progress import bar

    same.check_sheet(sheet)
    labels = labels_of(asked.words)
    opened = retrieval.open(collection)
    with bar("comparing", not json and not images) as tell:
        found = opened.zero_shot(
            labels,
            images=list(images) or None,
            where=asked.where,
            templates=asked.templates,
            space=asked.space,
            multi_label=asked.multi_label,
            apply=asked.apply,
            tell=tell,
        )
    if sheet is not None:
        from app.label_sheets import disagreements_sheet, named_sheet

        drawn = named_sheet(opened, found) if images else disagreements_sheet(opened, found)
        drawn.save(sheet)
    if json:
        print_json(found.as_json())
        return
    _print_pictures(found) if images else _print_stored(found)
    if found.note:
        note(found.note)


def refuse_without_words(templates: str | None, multi_label: bool, sheet: str | None) -> None:
    """Refuse options that only say something with labels in words.

    Raises:
        QueryError: naming them.
    """
    from retrieval.errors import QueryError

    if templates is not None or multi_label or sheet is not None:
        raise QueryError('--templates, --multi-label and --sheet go with --zero-shot "a,b,c"')


def one_filter(stored: str | None, where: str | None) -> str | None:
    """The filter: with labels in words, --stored and --where choose the same images.

    Raises:
        QueryError: if there are two.
    """
    from retrieval.errors import QueryError

    if stored is not None and where is not None:
        raise QueryError("with --zero-shot, --stored and --where mean the same: give one of them")
    return where if stored is None else stored


def labels_of(words: Sequence[str]) -> list[str]:
    """Labels as they were given: one text with commas, one text each, or lines of ``@FILE``.

    Raises:
        SourceError: if a file cannot be read.
    """
    from retrieval.errors import SourceError

    if len(words) != 1:
        return list(words)
    if not words[0].startswith("@"):
        return [label for label in words[0].split(",") if label.strip()]
    path = Path(words[0][1:]).expanduser()
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read labels from {str(path)!r}: {error}") from error
    return [line for line in lines if line.strip()]


def _print_pictures(found: ZeroShotResult) -> None:
    rows = [("label", "sure", "", "picture", "most like")]
    for each in found:
        near = ", ".join(f"{n.label} {n.score:.2f}" for n in each.neighbors)
        more = "none fits" if each.abstained else ", ".join(each.labels[1:])
        told = (each.label, f"{each.confidence:.2f}", more, each.uri or "", near)
        rows.append(tuple(printable(text).replace("\n", " ") for text in told))  # type: ignore[arg-type]
    print_columns(rows, right={1})


def _print_stored(found: ZeroShotResult) -> None:
    counts = Counter(label for each in found for label in each.labels)
    rows = [("label", "images")]
    rows += [(printable(label), str(count)) for label, count in counts.most_common()]
    if none := sum(each.abstained for each in found):
        rows.append(("(none fits)", str(none)))
    print_columns(rows, right={1})
    titles = {
        "looks alike": "look alike, named apart",
        "named alike": "named alike, look apart",
    }
    for kind, title in titles.items():
        pairs = [pair for pair in found.disagreements if pair.kind == kind]
        if not pairs:
            continue
        console().print()
        rows = [("strength", "score", title, "", "")]  # type: ignore[list-item]
        for pair in pairs[:_SHOWN]:
            names = (
                f"{pair.a.label} {pair.a.confidence:.2f}, {pair.b.label} {pair.b.confidence:.2f}"
            )
            told = (names, pair.a.uri, pair.b.uri)
            cells = (printable(text).replace("\n", " ") for text in told)
            rows.append((f"{pair.strength:.3f}", f"{pair.score:.3f}", *cells))  # type: ignore[arg-type]
        print_columns(rows, right={0, 1})
    said = f"{len(found)} images named in {found.space}, compared in {found.visual_space}"
    note(f"{said}; --json has every image with its nearest, --sheet draws the pairs")
