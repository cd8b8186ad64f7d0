"""Prompt templates: the phrases in which a label is read, as ``a photo of a {}``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from retrieval.encoders.base import TextEncoder
from retrieval.errors import QueryError, SourceError

Templates: TypeAlias = str | os.PathLike[str] | Sequence[str]
"""Name of a set, path of a file with one template a line, or the templates themselves."""


@cache
def named() -> dict[str, tuple[str, ...]]:
    """The sets that there are: ``plain``, ``imagenet-7``, ``imagenet-80``."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in Path(__file__).with_name("templates.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith(";"):
            found.setdefault(name, []).append(line)
    return {name: tuple(templates) for name, templates in found.items()}


def resolve(given: Templates | None, encoder: TextEncoder) -> tuple[str, tuple[str, ...]]:
    """The templates that are meant, and what to call them.

    Args:
        given: None for the bare label and the encoder's own prompt.
        encoder: that will read them.

    Raises:
        QueryError: if there is no such set, or a template has no ``{}``.
        SourceError: if a file cannot be read, or holds none.
    """
    if given is None:
        return "own", tuple(dict.fromkeys(("{}", encoder.spec.prompt)))
    if isinstance(given, str) and given in named():
        return given, named()[given]
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        if isinstance(given, str) and not path.is_file():
            sets = ", ".join(named())
            raise QueryError(f"{given!r} is neither a set of templates ({sets}) nor a file")
        return path.name, _checked(_lines(path))
    return "given", _checked(tuple(given))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read templates from {str(path)!r}: {error}") from error
    kept = tuple(line for line in lines if line and not line.startswith("#"))
    if not kept:
        raise SourceError(f"there is no template in {str(path)!r}: write one a line, with {{}}")
    return kept


def _checked(templates: tuple[str, ...]) -> tuple[str, ...]:
    if not templates:
        raise QueryError("the list of templates is empty: leave it out for the encoder's own")
    for template in templates:
        if "{}" not in template:
            raise QueryError(f"the template {template!r} has no {{}} for the label")
    return templates
