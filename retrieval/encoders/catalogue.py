"""The encoders that have a name: their facts, read from ``catalogue.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.specs_json import spec_of
from retrieval.errors import EncoderError

FILE = Path(__file__).with_name("catalogue.toml")


@cache
def specs() -> Mapping[str, EncoderSpec]:
    """All encoders that have a name, by name; the ones that need no download first."""
    from retrieval.encoders.pocket import SPECS

    known = (*SPECS, *read(FILE.read_text("utf-8")))
    return MappingProxyType({spec.name: spec for spec in known})


def read(text: str) -> tuple[EncoderSpec, ...]:
    """Read facts written as in ``catalogue.toml``, in the order of the file.

    Each ``[[family]]`` holds what its encoders share, each ``[[family.encoder]]`` below it what
    one adds or overrides; ``preprocess`` is the name of a table ``[preprocess]``.

    Raises:
        EncoderError: if it is no TOML, or naming the encoder and what is wrong with it.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EncoderError(f"the catalogue of encoders is no TOML: {error}") from error
    found: dict[str, EncoderSpec] = {}
    for family in given.get("family", []):
        for row in family.get("encoder", []):
            shared = {key: value for key, value in family.items() if key != "encoder"}
            spec = _spec({**shared, **row}, given.get("preprocess", {}))
            if spec.name in found:
                raise EncoderError(f"the catalogue of encoders has {spec.name} twice")
            found[spec.name] = spec
    return tuple(found.values())


def _spec(facts: dict[str, Any], tables: Mapping[str, Any]) -> EncoderSpec:
    name = facts.get("name", "an encoder without a name")
    table = str(facts.get("preprocess"))
    if table not in tables:
        raise EncoderError(f"the catalogue's {name}: there is no [preprocess] table {table!r}")
    try:
        return spec_of({**facts, "preprocess": tables[table]})
    except EncoderError as error:
        raise EncoderError(f"the catalogue's {name}: {error}") from error
