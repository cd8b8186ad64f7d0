"""What people already know of their images: labels from folder names or from a CSV file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from retrieval.errors import SourceError

RESERVED = ("label", "split", "tags")


class Labels(Protocol):
    """Facts about files, by path."""

    columns: Mapping[str, Any]
    """Arrow types of the metadata columns that this source brings, by name."""

    def facts(self, path: str) -> Mapping[str, Any]:
        """Values for ``label``, ``split``, ``tags`` and metadata columns; empty if unknown."""
        ...


class FolderLabels:
    """The name of the folder that a file lies in is its label."""

    columns: Mapping[str, Any] = {}

    def facts(self, path: str) -> Mapping[str, Any]:
        """The label of the file at ``path``."""
        name = os.path.basename(os.path.dirname(path))
        return {"label": os.fsencode(name).decode("utf-8", "replace")}


class CsvLabels:
    """A CSV file with a column ``file`` and one that holds the labels.

    ``file`` holds paths relative to the CSV's folder, absolute paths, or base names. ``split``
    and ``tags`` (separated by ``;``) go where they belong; every other column that holds anything
    becomes a metadata column of the type that its values have.
    """

    def __init__(self, csv: str | os.PathLike[str], column: str) -> None:
        """Read ``csv`` whole; ``column`` is the one with the labels.

        Raises:
            SourceError: if the file or a column is not there.
        """
        from pyarrow.types import is_null

        table = _read_csv(os.fspath(csv), ("file", column, *RESERVED))
        for needed in ("file", column):
            if needed not in table.column_names:
                have = ", ".join(table.column_names)
                raise SourceError(f"{os.fspath(csv)} has no column {needed!r}; it has: {have}")
        self.columns: Mapping[str, Any] = {
            field.name: field.type
            for field in table.schema
            if field.name not in {"file", column, *RESERVED} and not is_null(field.type)
        }
        folder = os.path.dirname(os.path.realpath(csv))
        self._by_path: dict[str, Mapping[str, Any]] = {}
        self._by_name: dict[str, Mapping[str, Any] | None] = {}
        for row in table.to_pylist():
            name = row["file"] or ""
            facts = {key: row[key] for key in self.columns}
            facts["label"] = row[column]
            if "split" in row and column != "split":
                facts["split"] = row["split"]
            if "tags" in row and column != "tags":
                facts["tags"] = [t.strip() for t in (row["tags"] or "").split(";") if t.strip()]
            path = os.path.normpath(os.path.join(folder, name))
            self._by_path[path] = facts
            if not os.path.lexists(path):  # else the row belongs to that file and to no namesake
                base = os.path.basename(name)
                same = self._by_name.get(base, facts) == facts
                self._by_name[base] = facts if same else None

    def facts(self, path: str) -> Mapping[str, Any]:
        """The row of the file at ``path``.

        Base names count only for rows whose path leads nowhere, and where they are unambiguous.
        """
        exact = self._by_path.get(path)
        return exact or self._by_name.get(os.path.basename(path)) or {}


def labels_from(given: str | Labels | None) -> Labels | None:
    """Read what ``--labels`` says: ``folder``, or ``FILE.csv:COLUMN``; an object is one already.

    Raises:
        SourceError: if it says neither.
    """
    if given is None or not isinstance(given, str | os.PathLike):
        return given
    if given == "folder":
        return FolderLabels()
    csv, colon, column = os.fspath(given).rpartition(":")
    if not colon or not csv or not column:
        raise SourceError(f"labels are 'folder' or FILE.csv:COLUMN, not {os.fspath(given)!r}")
    return CsvLabels(csv, column)


def _read_csv(path: str, text_columns: Sequence[str]) -> Any:
    """Read a CSV file; types are inferred but for ``text_columns``, where 007 and NA stay text."""
    import pyarrow as pa
    import pyarrow.csv

    as_text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(text_columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    inferred = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    try:
        table = pyarrow.csv.read_csv(path, convert_options=inferred)
        names = table.column_names
        if twice := {name for name in names if names.count(name) > 1}:
            raise SourceError(f"the labels file {path!r} has two columns {min(twice)!r}")
        texts = pyarrow.csv.read_csv(path, convert_options=as_text)
        for at, field in enumerate(table.schema):
            source = texts if field.name in text_columns else table
            table = table.set_column(at, field.name, _stored(source.column(field.name)))
    except FileNotFoundError as error:
        raise SourceError(f"there is no labels file {path!r}") from error
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"the labels file {path!r} cannot be read: {error}") from error
    return table


def _stored(column: Any) -> Any:
    """A column as the collection stores it: fractions of a microsecond and NaN are not kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _column_type(column.type)
    column = column.cast(kind, safe=not pa.types.is_timestamp(kind))
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    return column


def _column_type(inferred: Any) -> Any:
    """The type of a metadata column for what a CSV reader inferred."""
    import pyarrow as pa

    if pa.types.is_integer(inferred):
        return pa.int64()
    if pa.types.is_floating(inferred):
        return pa.float64()
    if pa.types.is_boolean(inferred) or pa.types.is_null(inferred):
        return inferred
    if pa.types.is_date(inferred) or pa.types.is_timestamp(inferred):
        return pa.timestamp("us")
    return pa.string()
