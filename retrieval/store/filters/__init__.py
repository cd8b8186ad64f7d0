"""The filter language of ``--where`` and of every ``where=``.

A filter is text such as ``label = 'Shoes' and (width >= 640 or tags has 'new')``:

- comparisons ``= != <> < <= > >=``, ``in ('a', 'b')``, ``between 1 and 9``, ``like 'DSC%'`` (``%``
  any text, ``_`` one character, backslash escapes them; case counts), ``is null``; each but the
  first kind also with ``not``;
- ``tags has 'new'`` asks whether a list holds a word;
- ``and``, ``or``, ``not``, parentheses; keywords in any case;
- the column stands left, the value right: ``'text'`` (a quote inside is doubled), ``12``,
  ``1.5e3``, ``true``, ``false``; times are text, as ``captured_at >= '2024-05-31'``;
- a column with an odd name goes in double quotes: ``"shutter speed" > 0.1``;
- ``metadata.make = 'Canon'`` looks into JSON; its values are compared as the value on the right is:
  as text, as a number, or as true and false; an array or object as its JSON text.

Null means unknown, as in SQL: ``label != 'Shoes'`` is not true for an image without a label. NaN
counts as larger than every number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.store.filters.expression import Expr, columns
from retrieval.store.filters.parser import parse
from retrieval.store.filters.sql import filterable, quote_text, to_sql

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Expr", "columns", "compile_filter", "filterable", "parse", "quote_text", "to_sql"]


def compile_filter(text: str, schema: pa.Schema) -> str:
    """Check ``text`` against ``schema`` and give the engine's SQL for it.

    Raises:
        FilterError: with the place in ``text``, if it does not parse or fit.
    """
    return to_sql(parse(text), schema, text)
