"""Facts of an encoder as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retrieval.encoders.base import EncoderSpec
from retrieval.encoders.naflex import preprocess_of
from retrieval.encoders.tokens import TextRule
from retrieval.errors import EncoderError

T = TypeVar("T", EncoderSpec, TextRule)


def to_json(facts: EncoderSpec | TextRule) -> dict[str, Any]:
    """All fields as JSON has them; the preprocessing as an object."""
    return asdict(facts)


def spec_of(given: Mapping[str, Any], assumed: Mapping[str, Any] | None = None) -> EncoderSpec:
    """Read back what :func:`to_json` wrote.

    Args:
        given: fields by name.
        assumed: what holds where ``given`` is silent.

    Raises:
        EncoderError: naming the fields that are missing, unknown or of another kind.
    """
    facts = {**(assumed or {}), **given}
    if isinstance(facts.get("preprocess"), Mapping):
        facts["preprocess"] = preprocess_of(facts["preprocess"])
    if isinstance(facts.get("modalities"), list):
        facts["modalities"] = tuple(facts["modalities"])
    return _made(EncoderSpec, facts, "encoder")


def rule_of(given: Mapping[str, Any]) -> TextRule:
    """Read back what :func:`to_json` wrote.

    Raises:
        EncoderError: naming the fields that are missing, unknown or of another kind.
    """
    return _made(TextRule, dict(given), "text")


def _made(kind: type[T], facts: dict[str, Any], what: str) -> T:
    needed = {field.name: field.default is MISSING for field in fields(kind)}
    if unknown := sorted(set(facts) - set(needed)):
        raise EncoderError(f"{what} has no field {', '.join(unknown)}")
    if lacking := [name for name, must in needed.items() if must and name not in facts]:
        raise EncoderError(f"{what} lacks {', '.join(lacking)}")
    hints = get_type_hints(kind)
    for name, value in facts.items():
        if not _fits(value, hints[name]):
            raise EncoderError(f"{what}: {name} cannot be {value!r}")
    return kind(**facts)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a field of these two classes may hold."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)
