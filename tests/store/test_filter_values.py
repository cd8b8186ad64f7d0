"""Random filters: the engine's answer equals a plain evaluation with three-valued logic."""

from __future__ import annotations

import json
import operator
import re
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.store import Store, maintenance
from retrieval.store.filters import parse
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
)

TEXTS = ["", "a", "A", "a%b", "a_b", "it's", "naïve 日本", "a\\b", "b\nc", '"q"', "100", "ab"]
INTS = [-(2**31), -1, 0, 1, 7, 640, 2**31 - 1]
LONGS = [-(2**63) + 1, -5, 0, 3, 2**53 + 1, 2**63 - 1]
FLOATS = [-1.5, 0.0, 0.1, 3.0, 1e300, float("inf"), float("-inf")]
TIMES = [datetime(1, 1, 1), datetime(1999, 12, 31, 23, 59, 59, 999999), datetime(2024, 5, 31)]
TIMES += [datetime(9999, 12, 31), datetime(2024, 5, 31, 18, 30)]
JSON = [None, "x", "it's", "", 3, 3.5, "7", True, False, [1], {"b": "x"}, {"b": {"c": 1}}]
N = 60
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def value(options: list, row: int, step: int) -> object:
    """Values and nulls in a mixed but fixed order."""
    return None if (row * step) % 5 == 4 else options[(row * step + row // 7) % len(options)]


def make_row(i: int) -> dict:
    key = JSON[i % len(JSON)]
    return {
        "image_id": i,
        "uri": f"/p/{i}",
        "label": value(TEXTS, i, 3),
        "width": value(INTS, i, 7),
        "big": value(LONGS, i, 11),
        "shutter speed": value(FLOATS, i, 13),
        "kids": value([True, False], i, 2),
        "captured_at": value(TIMES, i, 17),
        "ingested_at": None if i % 4 == 0 else datetime(2024, 1, 1, tzinfo=UTC) + timedelta(i),
        "tags": [None, [], ["a"], ["a", "it's"], ["x", "日本"]][i % 5],
        "metadata": None if i % 7 == 0 else {} if i % 7 == 1 else {"a": key, "o'\"k": "x"},
    }


ROWS = [make_row(i) for i in range(N)]


@pytest.fixture(scope="module", params=["scanned", "indexed", "partly indexed"])
def table(tmp_path_factory, request) -> Store:
    """The rows in two commits; the engine answers from indexes by other code than from scans."""
    store = Store.create(tmp_path_factory.mktemp("filters") / "c")
    store.add_columns(
        pa.schema([("big", pa.int64()), ("shutter speed", pa.float64()), ("kids", pa.bool_())])
    )
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "scanned":
            patch.setattr(maintenance, "MIN_INDEXED_ROWS", 1)
        store.upsert(arrow(ROWS[: N // 2], store.columns()))
        if request.param == "partly indexed":
            store.optimize()
        store.upsert(arrow(ROWS[N // 2 :], store.columns()))
        if request.param == "indexed":
            store.optimize()
    return store


def arrow(rows: list[dict], types: pa.Schema) -> pa.Table:
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "metadata":
            columns[name] = pa.array([v if v is None else json.dumps(v) for v in values])
        else:
            columns[name] = pa.array(values, types.field(name).type)
    return pa.table(columns)


def truth(expr: Expr, row: dict) -> bool | None:
    """SQL's three-valued logic; None is unknown."""
    match expr:
        case Not(term):
            inner = truth(term, row)
            return None if inner is None else not inner
        case And(terms):
            found = [truth(term, row) for term in terms]
            return False if False in found else None if None in found else True
        case Or(terms):
            found = [truth(term, row) for term in terms]
            return True if True in found else None if None in found else False
        case Between(column, low, high):
            return truth(And((Compare(column, ">=", low), Compare(column, "<=", high))), row)
        case In(column, literals):
            found = [truth(Compare(column, "=", literal), row) for literal in literals]
            return None if None in found else True in found
        case _:
            return holds(expr, row)


def holds(condition: Condition, row: dict) -> bool | None:
    match condition:
        case IsNull(column):
            return cell(column, row, "") is None
        case Has(column, word):
            return None if row[column.name] is None else word.value in row[column.name]
        case Like(column, pattern):
            text = cell(column, row, "")
            return None if text is None else like(text, str(pattern.value))
        case Compare(column, sign, literal):
            left, right = cell(column, row, literal.value), comparable(column, literal.value)
            return None if left is None else OPERATORS[sign](left, right)


def cell(column: Column, row: dict, other: object) -> object:
    found = row[column.name]
    for key in column.path:
        found = found.get(key) if isinstance(found, dict) else None
    if not column.path or found is None:
        return found
    if isinstance(found, dict | list):
        found = json.dumps(found, separators=(",", ":"))
    if isinstance(other, str | bool):
        return found if isinstance(found, str) else json.dumps(found)
    try:
        return None if isinstance(found, bool) else float(found)
    except ValueError:
        return None


def comparable(column: Column, literal: object) -> object:
    if column.path:
        return json.dumps(literal) if isinstance(literal, bool) else literal
    if column.name == "captured_at":
        return datetime.fromisoformat(str(literal))
    if column.name == "ingested_at":
        return datetime.fromisoformat(str(literal)).replace(tzinfo=UTC)
    return literal


def like(text: str, pattern: str) -> bool:
    out, escaped = "", False
    for char in pattern:
        if escaped:
            out, escaped = out + re.escape(char), False
        elif char == "\\":
            escaped = True
        else:
            out += {"%": ".*", "_": "."}.get(char, re.escape(char))
    return re.fullmatch(out, text, re.DOTALL) is not None


def write(expr: Expr) -> str:
    """An expression as a person writes it."""
    match expr:
        case Not(term):
            return f"not ({write(term)})"
        case And(terms):
            return " AND ".join(f"({write(term)})" for term in terms)
        case Or(terms):
            return " or ".join(f"({write(term)})" for term in terms)
    column = ".".join(
        '"' + p.replace('"', '""') + '"' for p in (expr.column.name, *expr.column.path)
    )
    match expr:
        case IsNull():
            return f"{column} is null"
        case Between(_, low, high):
            return f"{column} between {literal(low)} and {literal(high)}"
        case In(_, literals):
            return f"{column} in ({', '.join(map(literal, literals))})"
        case Has(_, word):
            return f"{column} has {literal(word)}"
        case Like(_, pattern):
            return f"{column} like {literal(pattern)}"
        case Compare(_, sign, right):
            return f"{column} {sign} {literal(right)}"


def literal(node: Literal) -> str:
    if isinstance(node.value, str):
        return "'" + node.value.replace("'", "''") + "'"
    return str(node.value).lower() if isinstance(node.value, bool) else repr(node.value)


ORDERS = list(OPERATORS)
texts = st.sampled_from(TEXTS) | st.text(st.sampled_from("ab%_'\\ é日"), max_size=3)
patterns = st.text(st.sampled_from("aAb%_'é日1\n"), max_size=4) | st.sampled_from(
    ["a\\%b", "%\\_%", "a\\\\b", "%", "a%", "%b", "%'%", "%_b"]
)
whole = st.sampled_from([*INTS, *LONGS, 2**40, -(2**40)])
floats = st.sampled_from([x for x in FLOATS if abs(x) < 1e301]) | st.integers(-9, 9)
times = st.sampled_from([time.isoformat() for time in TIMES] + ["2024-05-31", "2024-01-20"])
numbers = st.sampled_from([0.5, 639.5, -1, 0, 7, 640, 3])


def conditions(column: Column, values, *, ordered: bool = True):
    value = values.map(Literal)
    operators = st.sampled_from(ORDERS if ordered else ORDERS[:2])
    kinds = [
        st.builds(Compare, st.just(column), operators, value),
        st.builds(In, st.just(column), st.lists(value, min_size=1, max_size=4).map(tuple)),
        st.just(IsNull(column)),
    ]
    if ordered:
        kinds.append(st.builds(Between, st.just(column), value, value))
    return st.one_of(kinds)


A, ODD = Column("metadata", ("a",)), Column("metadata", ("o'\"k",))
NESTED = Column("metadata", ("a", "b"))
leaves = st.one_of(
    conditions(Column("label"), texts),
    conditions(Column("image_id"), numbers),
    conditions(Column("width"), whole | numbers),
    conditions(Column("big"), st.sampled_from(LONGS)),
    conditions(Column("shutter speed"), floats),
    conditions(Column("kids"), st.booleans(), ordered=False),
    conditions(Column("captured_at"), times),
    conditions(Column("ingested_at"), times),
    conditions(A, texts),
    conditions(A, numbers),
    conditions(A, st.booleans(), ordered=False),
    conditions(ODD, texts),
    conditions(NESTED, texts),
    st.builds(Like, st.sampled_from([Column("label"), A]), patterns.map(Literal)),
    st.builds(
        Has, st.just(Column("tags")), st.sampled_from(["a", "it's", "日本", ""]).map(Literal)
    ),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(expr=expressions)
def test_the_engine_agrees_with_plain_evaluation(table: Store, expr: Expr):
    text = write(expr)
    assert parse(text) == expr
    expected = [row["image_id"] for row in ROWS if truth(expr, row) is True]
    assert list(table.ids(text)) == expected, text
