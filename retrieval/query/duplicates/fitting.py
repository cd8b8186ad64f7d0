"""The threshold of a collection: fitted to copies of its own images, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval import folders
from retrieval.encoders import Encoder
from retrieval.errors import EncoderError, SpaceMismatch
from retrieval.query.duplicates import rehearsal
from retrieval.query.duplicates.census import census
from retrieval.query.duplicates.evidence import METHOD
from retrieval.query.duplicates.fit import Fit, choose, judge
from retrieval.query.duplicates.tiers import Tier
from retrieval.query.indexed import Indexed
from retrieval.query.indexing import Indexes

SAMPLE = 100
"""Images that are copied for a fit."""

_DEFAULT = 0.6
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
    tell: rehearsal.Tell | None = None,
) -> Fit:
    """Fit the threshold of ``space``; see :meth:`retrieval.Collection.fit_threshold`."""
    vectors = collection.vectors(space)
    store = collection.store.again()
    plain = where is None and at is None
    key: dict[str, Any] = {
        "owner": [store.collection_id, *store.space(space).identity],
        "asked": [list(tiers), sample, seed, METHOD],
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
        return Fit(_DEFAULT if at is None else at, None, None, tuple(tiers), seed=seed, note=note)
    threshold, note = choose(seen) if at is None else (at, "")
    fit = judge(seen, threshold, tiers, seed, note)
    if plain:
        _keep(place, {**key, "rows": len(vectors.ids), "fit": fit.as_json()})
    return fit


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
