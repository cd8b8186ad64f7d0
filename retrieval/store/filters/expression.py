"""What a parsed filter is: frozen nodes, with the place of each in the text for error messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import TypeAlias

from retrieval.errors import FilterError

Value: TypeAlias = str | int | float | bool
Operator: TypeAlias = OneOf["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or with a ``path`` a value inside a JSON column."""

    name: str
    path: tuple[str, ...] = ()
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """As a person writes it."""
        return ".".join((self.name, *self.path))


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the filter."""

    value: Value
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """``column operator literal``."""

    column: Column
    operator: Operator
    literal: Literal


@dataclass(frozen=True, slots=True)
class In:
    """``column in (literal, …)``."""

    column: Column
    literals: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """``column between low and high``, both included."""

    column: Column
    low: Literal
    high: Literal


@dataclass(frozen=True, slots=True)
class Like:
    """``column like 'pattern'``: ``%`` any text, ``_`` one character, backslash escapes them."""

    column: Column
    pattern: Literal


@dataclass(frozen=True, slots=True)
class Has:
    """``column has 'word'``: the list holds the word."""

    column: Column
    word: Literal


@dataclass(frozen=True, slots=True)
class IsNull:
    """``column is null``."""

    column: Column


@dataclass(frozen=True, slots=True)
class Not:
    """``not term``; unknown stays unknown."""

    term: Expr


@dataclass(frozen=True, slots=True)
class And:
    """All terms, at least two."""

    terms: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any term, of at least two."""

    terms: tuple[Expr, ...]


Condition: TypeAlias = Compare | In | Between | Like | Has | IsNull
Expr: TypeAlias = Condition | Not | And | Or


def columns(expr: Expr) -> set[str]:
    """Names of the columns that ``expr`` reads."""
    match expr:
        case Not(term):
            return columns(term)
        case And(terms) | Or(terms):
            return set().union(*(columns(term) for term in terms))
        case _:
            return {expr.column.name}


def problem(message: str, text: str, at: int) -> FilterError:
    """An error that shows where in ``text`` it is."""
    if not text:
        return FilterError(message)
    start = max(0, at - 60)
    shown = text[start : at + 60]
    shown = "".join(c if c.isprintable() else " " for c in shown)
    return FilterError(f"{message}\n  {shown}\n  {' ' * (at - start)}^")
