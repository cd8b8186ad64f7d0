"""The one function that exports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from numpy.typing import ArrayLike

from retrieval.errors import ExportError
from retrieval.query.collection import Collection
from retrieval.query.export.coco import write_coco
from retrieval.query.export.image_folder import Link, write_folder
from retrieval.query.export.report import ExportReport
from retrieval.query.export.selection import Selection
from retrieval.query.export.tables import write_csv, write_parquet
from retrieval.uris import uri_of
from retrieval.vectors.tiles import Tell

Form: TypeAlias = Literal["parquet", "csv", "coco", "folder"]
FORMS: tuple[Form, ...] = get_args(Form)


def export(
    collection: Collection,
    out: str | os.PathLike[str],
    *,
    form: Form,
    where: str | None = None,
    ids: ArrayLike | None = None,
    spaces: Sequence[str] = (),
    link: Link = "copy",
    tell: Tell | None = None,
) -> ExportReport:
    """Write the images of a collection in a form that other programs read, by ascending id.

    Args:
        collection: all that is written is of its newest version.
        out: a file, which replaces one of that name in one move; for ``folder`` a folder that is
            new, empty, or an earlier export of this collection, which becomes this one: no file of
            anybody else is overwritten or removed.
        form: ``parquet`` and ``csv`` have one row an image with all columns; ``coco`` has labels as
            categories; ``folder`` has the files themselves, as ``[SPLIT/]LABEL/NAME``.
        where: filter expression: only images for which it holds.
        ids: only these images.
        spaces: spaces whose vectors are written too (``parquet``).
        link: copies, hard links or symbolic links (``folder``).
        tell: called with the number of images that are done, and of all.

    Raises:
        ExportError: if the form is none or does not go with the other arguments, or ``out`` cannot
            be written; no half-written file is left.
        FilterError: if ``where`` does not parse or fit the columns.
        QueryError: naming an unknown id.
        UnknownSpace: if there is no such space.
    """
    if form not in FORMS:
        raise ExportError(f"form is one of {', '.join(FORMS)}, not {form!r}")
    if link not in get_args(Link):
        raise ExportError(f"link is one of {', '.join(get_args(Link))}, not {link!r}")
    if spaces and form != "parquet":
        raise ExportError(f"vectors are exported as Parquet, not as {form}")
    if link != "copy" and form != "folder":
        raise ExportError(f"links are exported into a folder, not as {form}")
    place = Path(os.path.abspath(out))
    if form != "folder" and place.is_dir():
        raise ExportError(f"{place} is a folder: name a file")
    chosen = Selection(collection, where, ids)
    report = ExportReport(form, uri_of(place), images=len(chosen.ids))
    if form == "parquet":
        write_parquet(chosen, place, list(dict.fromkeys(spaces)), tell)
    elif form == "csv":
        write_csv(chosen, place, tell)
    elif form == "coco":
        write_coco(chosen, place, tell)
    else:
        write_folder(chosen, place, link, report, tell)
    return report
