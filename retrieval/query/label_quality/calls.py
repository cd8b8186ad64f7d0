"""Label quality: what people call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import QueryError
from retrieval.query.classify.exemplars import Exemplars, gather
from retrieval.query.classify.votes import TEMPERATURE, K
from retrieval.query.indexed import Indexed
from retrieval.query.label_quality.found import Evidence, LabelIssue, LabelIssues
from retrieval.query.label_quality.suspicion import FLAGGED_FROM, Suspicion, suspicion
from retrieval.store import Store
from retrieval.store.made import Provenance
from retrieval.vectors.tiles import Tell

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 3  # neighbours of each issue
_BLOCK_ROWS = 8192
COLUMNS = ("label_issue", "label_suggested")


class LabelChecking(Indexed):
    """What a collection knows of the labels that its images were given."""

    def mislabelled(
        self,
        labels: str = "label",
        *,
        where: str | None = None,
        space: str | None = None,
        apply: bool = False,
        tell: Tell | None = None,
    ) -> LabelIssues:
        """Find labels that are likely wrong, the most suspicious first.

        Every image is judged by all others: by the votes of its 20 nearest neighbours, and by a
        linear classifier that has not seen it. A label is named whose probability is below a tenth
        of what images of its class usually get.

        Args:
            labels: column of the labels; images without one take no part.
            where: filter expression; only these images are judged, and judge.
            space: whose vectors tell what is alike; the first visual one by default.
            apply: write the columns ``label_issue`` (the suspicion, from 0 to 1, of every label
                that was judged) and ``label_suggested`` (null where nothing is wrong).
            tell: called with the number of images whose neighbours are found, and n.

        Returns:
            The issues, with the nearest images as evidence.

        Raises:
            QueryError: if there is no such column, fewer than two classes, or a vector that is not
                finite.
            UnknownSpace: if there is no such space.
            FilterError: if ``where`` does not parse or fit the columns.
            CollectionError: if a column of that name is a person's own; nothing is written over.
        """
        import pyarrow as pa

        chosen = self._space(space).name
        store = self.store.again()
        if apply:
            store.made.check(
                pa.schema(list(zip(COLUMNS, (pa.float64(), pa.string()), strict=True)))
            )
        exemplars = gather(store, self.vectors(chosen), labels, where)
        _check_finite(exemplars, chosen)
        judged = suspicion(exemplars, tell)
        if apply:
            given = {"labels": labels, "where": where, "k": K, "temperature": TEMPERATURE}
            given["flagged_from"] = FLAGGED_FROM
            made = Provenance("mislabels", chosen, given, exemplars.version)
            store.made.write(_columns(exemplars, judged), made)
            with self._lock:
                self.store.refresh()
        single = [c for c, size in zip(exemplars.classes, exemplars.sizes, strict=True) if size < 2]
        return LabelIssues(
            _issues(store, exemplars, judged),
            column=labels,
            space=chosen,
            images=len(exemplars.ids) - len(single),
            unlabelled=exemplars.unlabelled,
            classes=exemplars.classes,
            single=single,
            version=exemplars.version,
        )


def _check_finite(exemplars: Exemplars, space: str) -> None:
    at = 0
    for block in exemplars.blocks(_BLOCK_ROWS):
        wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(wrong):
            raise QueryError(
                f"the vector of image {exemplars.ids[at + wrong[0]]} in space {space!r} is not "
                "finite: delete that image and index it again"
            )
        at += len(block)


def _issues(store: Store, exemplars: Exemplars, judged: Suspicion) -> list[LabelIssue]:
    ranked = judged.ranked
    near = judged.neighbors[ranked, :_SHOWN]
    shown = np.unique(np.concatenate([ranked, near[near >= 0]]))
    uris = store.rows(exemplars.ids[shown], ["uri"])["uri"].to_pylist()
    uri_of = dict(zip(shown.tolist(), uris, strict=True))
    found = []
    for place, at in enumerate(ranked.tolist()):
        evidence = [
            Evidence(
                int(exemplars.ids[other]),
                uri_of[other],
                exemplars.classes[exemplars.codes[other]],
                float(score),
            )
            for other, score in zip(near[place].tolist(), judged.scores[at], strict=False)
            if other >= 0
        ]
        issue = LabelIssue(
            image_id=int(exemplars.ids[at]),
            uri=uri_of[at],
            given=exemplars.classes[exemplars.codes[at]],
            suggested=exemplars.classes[judged.suggested[at]],
            suspicion=float(judged.values[at]),
            confidence=float(judged.likely[at]),
            by_neighbors=float(judged.by_neighbors[at]),
            by_line=float(judged.by_line[at]),
            neighbors=tuple(evidence),
        )
        found.append(issue)
    return found


def _columns(exemplars: Exemplars, judged: Suspicion) -> pa.Table:
    import pyarrow as pa

    flagged = judged.values >= FLAGGED_FROM
    names = [str(exemplars.classes[code]) for code in judged.suggested.tolist()]
    suggested = [name if wrong else None for name, wrong in zip(names, flagged, strict=True)]
    columns = [
        pa.array(exemplars.ids),
        pa.array(judged.values, from_pandas=True),
        pa.array(suggested, pa.string()),
    ]
    return pa.table(columns, names=["image_id", *COLUMNS])
