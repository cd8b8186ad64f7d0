"""Predictions as columns of the collection, with where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrieval.query.classify.exemplars import Label
from retrieval.query.classify.predictions import Predictions
from retrieval.store import Store
from retrieval.store.made import Provenance

if TYPE_CHECKING:
    import pyarrow as pa


def columns(labels: str, classes: Sequence[Label]) -> pa.Schema:
    """The columns that predictions are written to."""
    import pyarrow as pa

    kinds: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), str: pa.string()}
    name = f"predicted_{labels}"
    return pa.schema(
        [
            (name, kinds[type(classes[0])]),
            (f"{name}_confidence", pa.float64()),
            (f"{name}_abstained", pa.bool_()),
        ]
    )


def check_columns(store: Store, labels: str, classes: Sequence[Label]) -> None:
    """Refuse to write over a person's own columns.

    Raises:
        CollectionError: naming the column and the way out.
    """
    store.made.check(columns(labels, classes))


def write_predictions(
    store: Store,
    found: Predictions,
    labels: str,
    classes: Sequence[Label],
    parameters: Mapping[str, Any],
) -> None:
    """Set the columns: the best class even where it was abstained from, and that it was."""
    import pyarrow as pa

    schema = columns(labels, classes)
    told = [
        [each.label for each in found],
        [each.confidence for each in found],
        [each.abstained for each in found],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(told, schema, strict=True)]
    ids = pa.array([each.image_id for each in found], pa.int64())
    rows = pa.table([ids, *arrays], names=["image_id", *schema.names])
    given = {"encoder": store.space(found.space).encoder, **parameters}
    store.made.write(rows, Provenance("classify", found.space, given, found.version))
