"""The threshold of a collection: fitted to copies of its own images, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval import folders
from retrieval.encoders import Encoder
from retrieval.errors import EncoderError, QueryError, SpaceMismatch
from retrieval.query.duplicates import rehearsal
from retrieval.query.duplicates.census import census
from retrieval.query.duplicates.evidence import METHOD
from retrieval.query.duplicates.fit import DEFAULT, FEW, Fit, choose, judge
from retrieval.query.duplicates.tiers import SAME, Tier
from retrieval.query.indexed import Indexed
from retrieval.query.indexing import Indexes
from retrieval.vectors.tiles import Tell

SAMPLE = 100
"""Images that are copied for a fit."""

_RULE = 2  # how a threshold is chosen: what was chosen otherwise is chosen anew
_KEPT = "fit.json"
_GROWTH = 2.0  # a kept fit serves until there are twice or half as many images


def fit_threshold(
    collection: Indexed,
    space: str,
    *,
    tiers: Sequence[Tier],
    where: str | None = None,
    at: float | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    tell: Tell | None = None,
) -> Fit:
    """Fit the threshold of ``space``; see :meth:`retrieval.Collection.fit_threshold`."""
    if sample < 1:
        raise QueryError(f"a fit needs a sample of one image or more, not {sample}")
    if not {"copy", "edited"} & set(tiers):
        fit = fit_threshold(
            collection, space, tiers=SAME, where=where, at=at, sample=sample, seed=seed, tell=tell
        )
        note = f"copies tell nothing of {' and '.join(tiers)}: it is fitted to find copies"
        return replace(
            fit, tiers=tuple(tiers), precision=None, recall=None, by_transform={}, note=note
        )
    vectors = collection.vectors(space)
    store = collection.store.again()
    plain = where is None and at is None
    key: dict[str, Any] = {
        "owner": [store.collection_id, *store.space(space).identity],
        "asked": [list(tiers), sample, seed, METHOD, _RULE],
    }
    place = Indexes(store).folder(space) / ".fit"
    if plain and (kept := _kept(place, key, len(vectors.ids))) is not None:
        return kept
    encoder = encoder_of(collection, space)
    seen = rehearsal.rehearse(
        store,
        vectors,
        census(store, where),
        encoder,
        tiers=tiers,
        sample=sample,
        seed=seed,
        at=at,
        tell=tell,
    )
    if len(seen.scores) == 0:
        note = "there are no pictures to fit it to"
        cosine = DEFAULT if at is None else at
        return Fit(cosine, None, None, tuple(tiers), seed=seed, note=note, space=space)
    threshold, note = choose(seen) if at is None else (at, "")
    fit = replace(judge(seen, threshold, tiers, seed, note), space=space)
    if plain:
        _keep(place, {**key, "rows": len(vectors.ids), "fit": fit.as_json()})
    return fit


def fit_all(
    collections: Sequence[Indexed],
    space: str,
    *,
    tiers: Sequence[Tier],
    where: str | None = None,
    tell: Tell | None = None,
) -> Fit:
    """The fit that serves several collections: the lowest, of those to enough images if there are.

    Raises:
        EncoderError: if the space's encoder is not here for any of them.
    """
    fits: list[Fit] = []
    missing: EncoderError | None = None
    for collection in collections:
        try:
            fits.append(fit_threshold(collection, space, tiers=tiers, where=where, tell=tell))
        except EncoderError as error:
            missing = error
    if missing is not None and not fits:
        raise missing
    return min(fits, key=lambda fit: (fit.sampled < FEW, fit.threshold))


def encoder_of(collection: Indexed, space: str) -> Encoder:
    """The encoder of a space.

    Raises:
        EncoderError: naming the ways to do without it.
    """
    try:
        return collection.encoder(space)
    except (EncoderError, SpaceMismatch) as error:
        raise EncoderError(
            f"this needs the encoder of {space!r}, which is not here: {error}. Duplicates are "
            "found without it by a number (--threshold NUMBER), or by bytes alone (--tier exact)"
        ) from error


def _kept(place: Path, key: dict[str, Any], rows: int) -> Fit | None:
    with contextlib.suppress(OSError, ValueError):
        facts = folders.read_note(place, _KEPT)
        same = all(facts.get(name) == value for name, value in key.items())
        growth = rows / max(1, facts["rows"])
        if same and facts["format"] == folders.FORMAT and 1 / _GROWTH <= growth <= _GROWTH:
            return Fit.of_json(facts["fit"])
    return None


def _keep(place: Path, facts: dict[str, Any]) -> None:
    """Beside the space's indexes, and gone with them; where that cannot be written, not at all."""
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with folders.turn(place):
            folders.write(place, _KEPT, lambda _: facts)
