"""A linear classifier on vectors as they are: a second opinion beside neighbours.

Logistic regression on a frozen encoder, as self-supervised encoders are evaluated ("linear probe";
Chen et al., "A simple framework for contrastive learning", 2020), with the strength of the
regularisation chosen by cross-validation. Saved as safetensors and JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import InstallError, QueryError, SourceError, SpaceMismatch
from retrieval.query.classify.exemplars import Exemplars, Label
from retrieval.query.classify.votes import Floats
from retrieval.types import Space

CS = (0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5

_WEIGHTS, _FACTS = "probe.safetensors", "probe.json"
_STEPS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class LinearProbe:
    """A fitted linear classifier.

    Attributes:
        weights: float64 ``[classes, dim]``.
        bias: float64 ``[classes]``.
        classes: labels, sorted.
        labels: the column that they come from.
        space: name of the space of the vectors.
        identity: of the space; see :class:`retrieval.types.Space`.
        version: of the collection.
        c: inverse strength of the regularisation.
        accuracy: cross-validated; that of the best C, and so a little too good.
        exemplars: how many it was fitted to.
    """

    weights: Floats
    bias: Floats
    classes: tuple[Label, ...]
    labels: str
    space: str
    identity: tuple[str | int, ...]
    version: int
    c: float
    accuracy: float
    exemplars: int

    def predict_proba(self, vectors: NDArray[np.floating]) -> Floats:
        """float64 ``[q, classes]``: softmax of the classes' scores for vectors ``[q, dim]``.

        Raises:
            QueryError: if the shape does not fit.
        """
        given = np.asarray(vectors, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != self.weights.shape[1]:
            raise QueryError(
                f"vectors have shape {list(given.shape)}, not [q, {self.weights.shape[1]}]"
            )
        scores = given @ self.weights.T + self.bias
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: Floats = powers / powers.sum(axis=1, keepdims=True)
        return found

    def predict(self, vectors: NDArray[np.floating]) -> list[Label]:
        """The best class of each of the vectors ``[q, dim]``."""
        return [self.classes[at] for at in self.predict_proba(vectors).argmax(axis=1)]

    def check(self, space: Space) -> None:
        """Refuse vectors of another encoder.

        Raises:
            SpaceMismatch: naming both.
        """
        if space.identity != self.identity:
            raise SpaceMismatch(
                f"the probe was fitted to vectors of {self.identity}, and space {space.name!r} "
                f"holds those of {space.identity}: fit it again"
            )

    def facts(self) -> dict[str, Any]:
        """What it is, but for its weights; plain JSON values."""
        names = ("labels", "space", "version", "c", "accuracy", "exemplars")
        more = {"classes": list(self.classes), "identity": list(self.identity)}
        return {name: getattr(self, name) for name in names} | more

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it into a folder, which is made if there is none."""
        from safetensors.numpy import save_file

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights, "bias": self.bias}, place / _WEIGHTS)
        text = json.dumps(self.facts(), indent=1, ensure_ascii=False)
        (place / _FACTS).write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> LinearProbe:
        """Read what :meth:`save` wrote; nothing is executed.

        Raises:
            SourceError: if it is not there, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        place = Path(folder)
        try:
            facts = json.loads((place / _FACTS).read_text("utf-8"))
            arrays = load_file(place / _WEIGHTS)
            lists = {name: tuple(facts[name]) for name in ("classes", "identity")}
            made = cls(arrays["weights"], arrays["bias"], **(facts | lists))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise SourceError(f"{place} holds no linear probe: {error}") from error
        if made.weights.shape[:1] != made.bias.shape or len(made.classes) != len(made.bias):
            raise SourceError(f"{place} is damaged: weights and classes do not fit each other")
        return made


def fit_probe(
    exemplars: Exemplars, labels: str, space: Space, cs: Sequence[float], seed: int
) -> LinearProbe:
    """Fit a probe; all vectors are held in memory.

    Raises:
        InstallError: if scikit-learn is not here.
        QueryError: if a class has fewer than two exemplars.
    """
    if find_spec("sklearn") is None:
        raise InstallError("linear probes need scikit-learn: pip install 'retrieval[learn]'")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    few = [label for label, n in zip(exemplars.classes, exemplars.sizes, strict=True) if n < 2]
    if few:
        named = ", ".join(repr(label) for label in few[:5])
        raise QueryError(
            f"a class needs two exemplars to be cross-validated; one has: {named}. Leave them out "
            "with a filter, or bring more"
        )
    rows, codes = exemplars.take(np.arange(len(exemplars.ids))), exemplars.codes
    folds = StratifiedKFold(min(FOLDS, int(exemplars.sizes.min())), shuffle=True, random_state=seed)
    # Not LogisticRegressionCV: what it is called with differs among the versions in use.
    models = {c: LogisticRegression(C=c, max_iter=_STEPS) for c in cs}
    told = {c: cross_val_predict(models[c], rows, codes, cv=folds) for c in cs}
    right = {c: float((told[c] == codes).mean()) for c in cs}
    best = max(right, key=lambda c: right[c])
    model = models[best].fit(rows, codes)
    weights = np.ascontiguousarray(model.coef_, dtype=np.float64)  # as the file stores them
    bias = np.ascontiguousarray(model.intercept_, dtype=np.float64)
    if len(exemplars.classes) == 2:  # one row there: the second class against the first
        weights = np.concatenate([np.zeros_like(weights), weights])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return LinearProbe(
        weights=weights,
        bias=bias,
        classes=exemplars.classes,
        labels=labels,
        space=space.name,
        identity=space.identity,
        version=exemplars.version,
        c=best,
        accuracy=right[best],
        exemplars=len(codes),
    )
