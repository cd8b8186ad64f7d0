"""Tokens to an expression, by recursive descent."""

from __future__ import annotations

import math
from collections.abc import Callable

from retrieval.errors import FilterError
from retrieval.store.filters.expression import (
    And,
    Between,
    Column,
    Compare,
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
from retrieval.store.filters.lexer import Token, tokens

MAX_DEPTH = 16
"""Parentheses and nots inside each other. The engine's own parser takes exponential time somewhere
between 20 and 50."""
MAX_CONDITIONS = 500
_AFTER_COLUMN = "=, !=, <, <=, >, >=, in, like, between, has or is"


def parse(text: str) -> Expr:
    """The expression that ``text`` says; columns and types are not looked at yet.

    Raises:
        FilterError: with the place, if it says none.
    """
    parser = _Parser(text)
    expr = parser.either()
    parser.end()
    return expr


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0
        self._conditions = 0

    def either(self) -> Expr:
        return self._chain("or", self._both, Or)

    def end(self) -> None:
        if self._peek.kind != "end":
            raise self._unexpected("'and', 'or' or the end")

    def _both(self) -> Expr:
        return self._chain("and", self._negation, And)

    def _chain(
        self, word: str, part: Callable[[], Expr], join: Callable[[tuple[Expr, ...]], Expr]
    ) -> Expr:
        terms = [part()]
        while self._skip("keyword", word):
            terms.append(part())
        return terms[0] if len(terms) == 1 else join(tuple(terms))

    def _negation(self) -> Expr:
        if self._skip("keyword", "not"):
            return Not(self._deeper(self._negation))
        if self._skip("mark", "("):
            inner = self._deeper(self.either)
            self._expect("mark", ")")
            return inner
        return self._condition()

    def _deeper(self, part: Callable[[], Expr]) -> Expr:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} parentheses and nots inside each other")
        inner = part()
        self._depth -= 1
        return inner

    def _condition(self) -> Expr:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise self._error(f"more than {MAX_CONDITIONS} conditions; use in (…)")
        column = self._column()
        token = self._peek
        if token.kind == "operator":
            self._next += 1
            operator = "!=" if token.value == "<>" else token.value
            return Compare(column, operator, self._literal())  # type: ignore[arg-type]
        if self._skip("keyword", "is"):
            negated = self._skip("keyword", "not")
            self._expect("keyword", "null")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._skip("keyword", "not")
        test = self._word_test(column)
        return Not(test) if negated else test

    def _word_test(self, column: Column) -> Expr:
        if self._skip("keyword", "in"):
            self._expect("mark", "(")
            literals = [self._literal()]
            while self._skip("mark", ","):
                literals.append(self._literal())
            self._expect("mark", ")")
            return In(column, tuple(literals))
        if self._skip("keyword", "like"):
            return Like(column, self._literal())
        if self._skip("keyword", "between"):
            low = self._literal()
            self._expect("keyword", "and")
            return Between(column, low, self._literal())
        if self._skip("keyword", "has"):
            return Has(column, self._literal())
        raise self._unexpected(f"{_AFTER_COLUMN} after the column {str(column)!r}")

    def _column(self) -> Column:
        token = self._peek
        if token.kind != "name":
            raise self._unexpected("a column")
        self._next += 1
        path = []
        while self._skip("mark", "."):
            if self._peek.kind not in ("name", "keyword"):
                raise self._unexpected("a key after the dot")
            path.append(self._text_of(self._peek))
            self._next += 1
        if len(path) > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} keys inside each other")
        return Column(token.value, tuple(path), token.at)

    def _literal(self) -> Literal:
        token = self._peek
        self._next += 1
        if token.kind == "text":
            return Literal(token.value, token.at)
        if token.kind == "number":
            return Literal(self._number(token), token.at)
        if token.kind == "keyword" and token.value in ("true", "false"):
            return Literal(token.value == "true", token.at)
        self._next -= 1
        if token.kind == "keyword" and token.value == "null":
            raise self._error("null is neither equal nor unequal to anything; write `is null`")
        if token.kind == "name":
            raise self._error(f"expected a value, not {token.value!r}; text goes in 'quotes'")
        raise self._unexpected("a value")

    def _number(self, token: Token) -> int | float:
        if len(token.value) > 400:
            raise problem("a number with too many digits", self._text, token.at)
        if token.value.lstrip("+-").isdigit():
            return int(token.value)
        if math.isinf(value := float(token.value)):
            raise problem("a number too large", self._text, token.at)
        return value

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _skip(self, kind: str, value: str) -> bool:
        found = self._peek.kind == kind and self._peek.value == value
        self._next += found
        return found

    def _expect(self, kind: str, value: str) -> None:
        if not self._skip(kind, value):
            raise self._unexpected(repr(value))

    def _text_of(self, token: Token) -> str:
        """A keyword used as a key keeps its case."""
        if token.kind == "keyword":
            return self._text[token.at : token.at + len(token.value)]
        return token.value

    def _unexpected(self, wanted: str) -> FilterError:
        token = self._peek
        if token.kind == "end":
            return self._error(f"the filter ends where {wanted} should be")
        return self._error(f"expected {wanted}, not {token.value[:40]!r}")

    def _error(self, message: str) -> FilterError:
        return problem(message, self._text, self._peek.at)
