"""The filter language: what parses, what is refused, and where errors point."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import FilterError
from retrieval.store import schema
from retrieval.store.filters import columns, compile_filter, filterable, parse
from retrieval.store.filters.expression import (
    And,
    Between,
    Column,
    Compare,
    Has,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
)

SCHEMA = pa.schema(
    [
        *schema.images(),
        ("kids", pa.bool_()),
        ("price", pa.float64()),
        ("shutter speed", pa.float64()),
        ("Größe", pa.int64()),
        ("vector_v", pa.list_(pa.float32(), 4)),
        ("embedded_v", pa.bool_()),
    ]
)


def compare(name, operator, value):
    return Compare(Column(name), operator, Literal(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label = 'it''s'", compare("label", "=", "it's")),
        ("width<>640", compare("width", "!=", 640)),
        ("price >= -1.5e3", compare("price", ">=", -1500.0)),
        ("kids = TRUE", compare("kids", "=", True)),
        ('"shutter speed" < .5', compare("shutter speed", "<", 0.5)),
        ('"a""b" = 1', compare('a"b', "=", 1)),
        ("Größe = 1", compare("Größe", "=", 1)),
        ("tags has 'x'", Has(Column("tags"), Literal("x"))),
        ("not tags has 'x'", Not(Has(Column("tags"), Literal("x")))),
        ("a is null", IsNull(Column("a"))),
        ("a IS NOT NULL", Not(IsNull(Column("a")))),
        ("a in (1, 2)", In(Column("a"), (Literal(1), Literal(2)))),
        ("a not in ('x')", Not(In(Column("a"), (Literal("x"),)))),
        ("a not like '%x_'", Not(Like(Column("a"), Literal("%x_")))),
        ("a between 1 and 2", Between(Column("a"), Literal(1), Literal(2))),
        (
            "a = 1 or b = 2 and not c = 3",
            Or((compare("a", "=", 1), And((compare("b", "=", 2), Not(compare("c", "=", 3)))))),
        ),
        ("(a = 1 or b = 2) and c = 3", And((Or((compare("a", "=", 1), compare("b", "=", 2))),
                                            compare("c", "=", 3)))),
        ("metadata.exif.\"odd key\" = 1",
         Compare(Column("metadata", ("exif", "odd key")), "=", Literal(1))),
        ("metadata.IN = 1", Compare(Column("metadata", ("IN",)), "=", Literal(1))),
    ],
)  # fmt: skip
def test_parse(text, expected):
    assert parse(text) == expected


def test_columns():
    assert columns(parse("a = 1 and (b.c is null or not d has 'x')")) == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("lable = 'x'", "lable", "did you mean label"),
        ("LABEL = 'x'", "LABEL", "did you mean label"),
        ("vector_v is null", "vector_v", "no column"),
        ("embedded_v = true", "embedded_v", "no column"),
        ("thumbnail is null", "thumbnail", "no column"),
        ("_rowid = 1", "_rowid", "no column"),
        ("width > 3 and label < 3", "3", "label holds text, not a number"),
        ("width = 'x'", "'x'", "width holds whole numbers, not text"),
        ("width = true", "true", "not true or false"),
        ("kids = 1", "1", "holds true or false"),
        ("kids < true", "true", "no order"),
        ("kids between false and true", "false", "no order"),
        ("tags = 'x'", "tags", "write tags has 'word'"),
        ("label has 'x'", "label", "no list"),
        ("tags has 3", "3", "holds text"),
        ("width like '6%'", "width", "not text"),
        ("label like 3", "3", "pattern is text"),
        ("label.x = 'y'", "label", "no keys"),
        ("metadata = 'y'", "metadata", "metadata.key"),
        ("metadata.a in (1, 'x')", "1", "different types"),
        ("captured_at > 3", "3", "holds times"),
        ("captured_at > 'soon'", "'soon'", "no date"),
        ("captured_at > '2024-01-01T00:00+02:00'", "'2024", "no time zone"),
        ("ingested_at > '0001-01-01T00:00+02:00'", "'0001", "out of range"),
        ("label = null", "null", "is null"),
        ("label in ('a', null)", "null", "is null"),
        ("label = Shoes", "Shoes", "'quotes'"),
        ("label == 'x'", "==", "write ="),
        ("label = 'x", "'x", "not closed"),
        ("label = “x”", "“", "typographic"),
        ("label", "", "ends where"),
        ("price = 1e999", "1e999", "too large"),
        ("label = 'a' label = 'b'", "label = 'b'", "'and', 'or' or the end"),
    ],
)
def test_errors_point_at_the_place(text, place, message):
    with pytest.raises(FilterError, match=message) as caught:
        compile_filter(text, SCHEMA)
    first, shown, caret = str(caught.value).split("\n")
    assert first and shown[2:] == text
    assert shown[len(caret) - 1 :].startswith(place)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x' OR '1'='1",
        "label = 'x' OR '1'='1'",
        "1=1",
        "1; drop table images",
        "label = 'a'; drop table images",
        "label = 'a' -- comment",
        "label = 'a' /* comment */",
        "`label` = 'a'",
        "label = `a`",
        "label = 'a' union select 1",
        "label in (select label from images)",
        "exists (select 1)",
        "length(label) > 3",
        "label = upper('a')",
        "cast(width as text) = '3'",
        "label = 'a' or true",
        "label = label",
        "width + 1 = 2",
        "label = 'a\0b'",
        "label\0 = 'a'",
        "label = '\ud800'",
        "label || 'x' = 'y'",
        "label = ?",
        "label = $1",
        "label = :x",
        "label = E'\\n'",
        "label = \"a\"",
        "label = ‘a’",
        "(" * 10_000 + "width = 1" + ")" * 10_000,
        "not " * 10_000 + "width = 1",
        "(" * 10_000,
        " or ".join(["width = 1"] * 10_000),
        "label = '" + "x" * 200_000 + "'",
        "width = " + "9" * 10_000,
        "metadata" + ".a" * 30_000 + " = 1",
    ],
)  # fmt: skip
def test_hostile_text_is_a_clear_error(text):
    with pytest.raises(FilterError) as caught:
        compile_filter(text, SCHEMA)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "value", ["x' OR '1'='1", "'; drop table images; --", "`", "/*", "\\", "%", "‘a’", '"', "''"]
)
def test_hostile_values_are_plain_text(store, rows, value):
    store.upsert(rows([1, 2], label=[value, "other"]))
    quoted = value.replace("'", "''")
    assert list(store.ids(f"label = '{quoted}'")) == [1]
    assert list(store.ids(f"label in ('{quoted}')")) == [1]
    assert store.count(f"label != '{quoted}'") == 1
    assert list(store.ids(f'metadata."{quoted.replace(chr(34), chr(34) * 2)}" is null')) == [1, 2]


def test_the_deepest_and_the_longest_filter_are_answered(store, rows):
    store.upsert(rows([1, 2], label=["a", "b"]))
    deep = "not (label = 'x' or " * 8 + "label = 'a'" + ")" * 8
    assert list(store.ids(deep)) == [1]
    assert list(store.ids("not " * 15 + "label = 'a'")) == [2]
    assert list(store.ids(" or ".join(["label = 'a'"] * 500))) == [1]
    alternating = "(label = 'x' or (label != 'y' and " * 8 + "label = 'a'" + "))" * 8
    assert list(store.ids(alternating)) == [1]
    many = ", ".join(f"'{i}'" for i in range(10_000))
    assert list(store.ids(f"label in ({many}, 'b')")) == [2]


def test_filterable_hides_what_cannot_be_compared():
    assert set(SCHEMA.names) - set(filterable(SCHEMA).names) == {
        "thumbnail",
        "vector_v",
        "embedded_v",
    }


words = st.sampled_from(
    ["label", "width", "tags", "metadata", ".", "(", ")", ",", "=", "<", "in", "not", "and", "or",
     "like", "between", "is", "null", "has", "'x'", "''", "3", "-1.5", "true", '"kids"', "'"]
)  # fmt: skip


@given(st.text() | st.lists(words | st.text(max_size=3)).map(" ".join))
def test_any_text_parses_or_is_a_filter_error(text):
    try:
        compile_filter(text, SCHEMA)
    except FilterError as error:
        assert str(error)
