"""The listing behind `retrieval encoders`: what there is, and which to choose."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.text import Text

from app.output import console

if TYPE_CHECKING:
    from retrieval.encoders import EncoderSpec

PURPOSES = (
    "Nothing to download",
    "What looks alike",
    "Words, English",
    "Words in other languages",
)
UNIT = "dinov2-small"
_HEADER = ("name", "dim", "MB", "cost", "img/s", "licence", "good for")
_RIGHT = {1, 2, 3, 4}
_LEAST = 34  # columns for the last column; in a narrower terminal it gets a line of its own


def purpose(spec: EncoderSpec) -> str:
    """The heading of :data:`PURPOSES` under which an encoder is listed."""
    if "/" not in spec.source:
        return PURPOSES[0]
    if "text" not in spec.modalities:
        return PURPOSES[1]
    return PURPOSES[2] if spec.tokenizer.endswith("English") else PURPOSES[3]


def cost(spec: EncoderSpec, unit: EncoderSpec) -> str:
    """The work of a picture as a multiple of that of ``unit``; empty where it is not counted."""
    if spec.gflops is None or unit.gflops is None:
        return ""
    ratio = spec.gflops / unit.gflops
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"


def print_list(specs: Mapping[str, EncoderSpec], defaults: tuple[str, ...]) -> None:
    """Print encoders by purpose, what binds their use, and which to choose."""
    out, width = console(), shutil.get_terminal_size((120, 24)).columns
    for line in _table(specs, width):
        out.print(line)
    for line in (*_terms(specs, width), *_choice(defaults, width)):
        out.print(line)


def _table(specs: Mapping[str, EncoderSpec], width: int) -> Iterator[Text]:
    unit = specs[UNIT]
    rows = {spec.name: _row(spec, unit) for spec in specs.values()}
    cells = [_HEADER, *rows.values()]
    used = [at for at in range(len(_HEADER) - 1) if any(row[at] for row in rows.values())]
    widths = {at: max(len(row[at]) for row in cells) for at in used}
    room = width - sum(widths.values()) - 2 * len(used)
    for at, heading in enumerate(PURPOSES):
        if at == 0:
            yield Text(_line(_HEADER, widths, room)[0], style="bold")
        yield Text(f"{heading}:", style="bold")
        for spec in specs.values():
            if purpose(spec) == heading:
                yield from map(Text, _line(rows[spec.name], widths, room))


def _row(spec: EncoderSpec, unit: EncoderSpec) -> tuple[str, ...]:
    return (
        spec.name,
        str(spec.dim),
        f"{spec.size_mb:.0f}",
        cost(spec, unit),
        f"{spec.images_per_s:.0f}" if spec.images_per_s else "",
        spec.licence + ("*" if spec.terms else "") + (" (gated)" if spec.gated else ""),
        spec.summary,
    )


def _line(row: tuple[str, ...], widths: Mapping[int, int], room: int) -> list[str]:
    """One row as aligned lines of the terminal, of which all but the first are indented."""
    cells = [
        row[at].rjust(width) if at in _RIGHT else row[at].ljust(width)
        for at, width in widths.items()
    ]
    front, last = "  ".join(cells), row[-1]
    if room < _LEAST:
        return [front.rstrip(), *([] if row is _HEADER else [f"    {last}"])]
    first, *more = textwrap.wrap(last, room)
    return [f"{front}  {first}", *(" " * (len(front) + 2) + line for line in more)]


def _terms(specs: Mapping[str, EncoderSpec], width: int) -> Iterator[Text]:
    """What the marks in the table mean: by licence, or by name where it is one encoder's."""
    yield Text("")
    note = f"cost: the work of a picture, {UNIT} = 1. gated: accept the terms at the hub first."
    yield from _wrapped(note, width)
    bound: dict[tuple[str, str], list[str]] = {}
    for spec in specs.values():
        if spec.terms:
            bound.setdefault((spec.licence, spec.terms), []).append(spec.name)
    for (licence, terms), names in bound.items():
        yield from _wrapped(f"* {licence if len(names) > 1 else names[0]}: {terms}.", width)


def _choice(defaults: tuple[str, ...], width: int) -> Iterator[Text]:
    yield Text("")
    yield Text("Which to choose:", style="bold")
    advice = {
        "words": "siglip2-base, for English too; laion-b-32 or datacomp-b-32 where it must be fast",
        "what looks alike": "dinov2-small, then dinov2-base; dinov3-base is newer, but gated",
        "rare languages": "metaclip2-b-32, metaclip2-l-14 (not for commercial use)",
        "both": f"two encoders: --encoder {UNIT} --encoder siglip2-base",
        "on a CPU": "those of a cost below 4×; --precision auto makes them faster",
        "commercial use": "those without *; what the others ask for stands above",
    }
    for need, answer in advice.items():
        yield from _wrapped(f"{need:<18}{answer}", width, 18)
    yield Text("")
    default = (
        f"A new collection takes {' + '.join(defaults)} unless --encoder says otherwise; "
        "RETRIEVAL_ENCODERS changes the default. `retrieval encoders NAME` tells all about one."
    )
    yield from _wrapped(default, width, 0)


def _wrapped(text: str, width: int, indent: int = 2) -> Iterator[Text]:
    lines = textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )
    yield from map(Text, lines)
