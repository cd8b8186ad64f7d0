"""An expression to the engine's SQL: columns and types checked, everything quoted."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retrieval.errors import FilterError
from retrieval.store.filters.expression import (
    And,
    Between,
    Column,
    Compare,
    Condition,
    Expr,
    Has,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
    problem,
)

if TYPE_CHECKING:
    import pyarrow as pa

_HIDDEN = "embedded_"
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def filterable(schema: pa.Schema) -> pa.Schema:
    """The columns of ``schema`` that a filter may use: no vectors, pictures or bookkeeping."""
    import pyarrow as pa

    return pa.schema(
        [f for f in schema if kind_of(f.type) is not None and not f.name.startswith(_HIDDEN)]
    )


def kind_of(kind: pa.DataType) -> str | None:
    """What a column holds, in words; None for what no filter can compare."""
    import pyarrow as pa

    tests: dict[str, Callable[[pa.DataType], bool]] = {
        "text": pa.types.is_string,
        "true or false": pa.types.is_boolean,
        "whole numbers": pa.types.is_integer,
        "numbers": pa.types.is_floating,
        "times": pa.types.is_timestamp,
        "a list": lambda t: pa.types.is_list(t) and pa.types.is_string(t.value_type),
        "JSON": lambda t: isinstance(t, pa.JsonType),
    }
    return next((name for name, test in tests.items() if test(kind)), None)


def quote_text(text: str) -> str:
    """``text`` as a literal of the engine."""
    return "'" + text.replace("'", "''") + "'"


def to_sql(expr: Expr, schema: pa.Schema, text: str = "") -> str:
    """``expr`` in the engine's SQL.

    Args:
        expr: from :func:`parse`.
        schema: of the table; hidden and uncomparable columns are left out of account.
        text: what ``expr`` was parsed from, so that errors can point into it.

    Raises:
        FilterError: for a column that is not there or a value of the wrong type.
    """
    return _Writer(filterable(schema), text).write(expr)


class _Writer:
    def __init__(self, schema: pa.Schema, text: str) -> None:
        self._schema = schema
        self._text = text

    def write(self, expr: Expr, negated: bool = False) -> str:
        """``expr``, or its negation pushed down to the conditions.

        With no NOT above a condition, only its being true matters. The engine relies on that: it
        takes ``a IN (1) AND a IN (2)`` for false, though it is unknown where a is null.
        """
        match expr:
            case Not(term):
                return self.write(term, not negated)
            case And(terms) | Or(terms):
                word = " AND " if isinstance(expr, And) != negated else " OR "
                return "(" + word.join(self.write(term, negated) for term in terms) + ")"
            case _:
                return self._condition(expr, negated)

    def _condition(self, expr: Condition, negated: bool) -> str:
        no = "NOT " if negated else ""
        match expr:
            case IsNull(column):
                return f"{self._operand(column)} IS {no}NULL"
            case Has(column, word):
                return no + self._has(column, word)
            case Like(column, pattern):
                self._pattern(column, pattern)
                left, (right,) = self._sides(column, pattern)
                return f"{left} {no}LIKE {right}"
            case Compare(column, operator, literal):
                self._ordered(operator not in ("=", "!="), literal)
                left, (right,) = self._sides(column, literal)
                return f"{left} {_OPPOSITE[operator] if negated else operator} {right}"
            case In(column, literals):
                left, members = self._sides(column, *literals)
                if negated:  # the engine takes `a NOT IN (1) OR a NOT IN (2)` for true on null
                    return f"({left} IS NOT NULL AND {left} NOT IN ({', '.join(members)}))"
                return f"{left} IN ({', '.join(members)})"
            case Between(column, low, high):
                self._ordered(True, low, high)
                left, (least, most) = self._sides(column, low, high)
                if negated:
                    return f"({left} < {least} OR {left} > {most})"
                return f"({left} >= {least} AND {left} <= {most})"

    def _ordered(self, needed: bool, *literals: Literal) -> None:
        for literal in literals:
            if needed and isinstance(literal.value, bool):
                raise self._error("true and false have no order; use = or !=", literal.at)

    def _has(self, column: Column, word: Literal) -> str:
        if self._kind(column) != "a list":
            raise self._error(f"{column} is no list; `has` is for lists such as tags", column.at)
        if not isinstance(word.value, str):
            raise self._error(f"{column} holds text, not {word.value!r}", word.at)
        return f"array_has({self._operand(column)}, {quote_text(word.value)})"

    def _pattern(self, column: Column, pattern: Literal) -> None:
        if not isinstance(pattern.value, str):
            raise self._error("a pattern is text in 'quotes'", pattern.at)
        if self._kind(column) not in ("text", "JSON"):
            raise self._error(f"{column} holds {self._kind(column)}, not text", column.at)

    def _sides(self, column: Column, *literals: Literal) -> tuple[str, list[str]]:
        """The column and the literals as the engine can compare them."""
        kind = self._kind(column)
        if kind == "a list":
            raise self._error(f"{column} is a list; write {column} has 'word'", column.at)
        if kind == "JSON":
            return self._json_sides(column, literals)
        operand = self._operand(column)
        if kind == "whole numbers":
            bits = self._schema.field(column.name).type.bit_width
            top = 2 ** (bits - 1) - 1
            for literal in literals:
                self._expect(isinstance(literal.value, int | float), column, literal)
            if any(not isinstance(x.value, int) or abs(x.value) > top for x in literals):
                return f"CAST({operand} AS DOUBLE)", [_number(float(x.value)) for x in literals]
        return operand, [self._value(kind, column, literal) for literal in literals]

    def _value(self, kind: str, column: Column, literal: Literal) -> str:
        value = literal.value
        if kind == "times":
            return self._time(column, literal)
        if isinstance(value, bool):
            self._expect(kind == "true or false", column, literal)
            return "true" if value else "false"
        if isinstance(value, str):
            self._expect(kind == "text", column, literal)
            return quote_text(value)
        self._expect(kind in ("numbers", "whole numbers"), column, literal)
        return _number(value if kind == "whole numbers" else float(value))

    def _json_sides(self, column: Column, literals: tuple[Literal, ...]) -> tuple[str, list[str]]:
        """JSON has no column type: the literals say what its values are compared as."""
        if not column.path:
            raise self._error(f"{column} holds keys; write {column}.key", column.at)
        operand = self._operand(column)
        kinds = {_literal_kind(literal.value) for literal in literals}
        if len(kinds) > 1:
            raise self._error("values of different types in one comparison", literals[0].at)
        if kinds == {"a number"}:
            left = f"TRY_CAST({operand} AS DOUBLE)"
            return left, [_number(float(x.value)) for x in literals]
        words = [str(x.value).lower() if isinstance(x.value, bool) else x.value for x in literals]
        return operand, [quote_text(str(word)) for word in words]

    def _time(self, column: Column, literal: Literal) -> str:
        self._expect(isinstance(literal.value, str), column, literal)
        try:
            time = datetime.fromisoformat(str(literal.value))
        except ValueError as error:
            raise self._error(
                f"{literal.value!r} is no date or time; write as '2024-05-31' or "
                "'2024-05-31T18:30:00'",
                literal.at,
            ) from error
        if self._schema.field(column.name).type.tz is None:
            if time.tzinfo is not None:
                raise self._error(f"{column} has no time zone; leave it out", literal.at)
            return f"timestamp '{time.isoformat(sep=' ', timespec='microseconds')}'"
        try:
            zoned = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except OverflowError as error:
            raise self._error(f"{literal.value!r} is out of range", literal.at) from error
        return f"timestamp '{zoned.isoformat(sep=' ', timespec='microseconds')}'"

    def _operand(self, column: Column) -> str:
        kind = self._kind(column)
        if kind != "JSON" and column.path:
            raise self._error(f"{column.name} holds {kind} and has no keys", column.at)
        quoted = f"`{column.name}`"
        if not column.path:
            return quoted
        for key in column.path[:-1]:
            quoted = f"json_get({quoted}, {quote_text(key)})"
        return _json_text(quoted, quote_text(column.path[-1]))

    def _kind(self, column: Column) -> str:
        if column.name not in self._schema.names:
            raise self._error(self._unknown(column.name), column.at)
        return str(kind_of(self._schema.field(column.name).type))

    def _unknown(self, name: str) -> str:
        by_lower = {n.lower(): n for n in self._schema.names}
        near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
        guess = f"; did you mean {' or '.join(by_lower[n] for n in near)}?" if near else ""
        return f"there is no column {name[:60]!r}{guess} Columns: {', '.join(self._schema.names)}"

    def _expect(self, fits: bool, column: Column, literal: Literal) -> None:
        if isinstance(literal.value, bool) and self._kind(column) != "true or false":
            fits = False
        if not fits:
            what = _literal_kind(literal.value)
            raise self._error(f"{column} holds {self._kind(column)}, not {what}", literal.at)

    def _error(self, message: str, at: int) -> FilterError:
        return problem(message, self._text, at)


def _json_text(column: str, key: str) -> str:
    """The value of ``key`` as text; an array or object as its JSON.

    ``json_get_string`` fails on arrays and objects, and with it the whole query; ``coalesce`` keeps
    them from it.
    """
    json = f"json_extract(json_get({column}, {key}), '$')"
    composite = f"nullif(regexp_replace({json}, '^[^\\[{{].*$', '', 's'), '')"
    return f"coalesce({composite}, json_get_string({column}, {key}))"


def _literal_kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"


def _number(value: int | float) -> str:
    return repr(value + 0)  # the engine tells -0.0 from 0.0
