"""The spaces of a collection and the encoders that belong to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from retrieval.encoders import Encoder, load
from retrieval.query.derive import Watch, derive, encoder_of_derived
from retrieval.query.spaces import check_identity, encoder_of
from retrieval.store import Store
from retrieval.store.transforms import Kind
from retrieval.types import Space


class Encoding:
    """What a collection knows of its spaces."""

    def __init__(self, store: Store) -> None:
        """Stand on an open ``store``."""
        self.store = store
        self._encoders: dict[str, Encoder] = {}
        self._precisions: dict[str, str] = {}  # of the encoders that were loaded for a precision
        self._lock = threading.RLock()

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The spaces by name, in the order they were added."""
        return self.store.spaces

    def derive(
        self,
        base: str,
        kind: Kind,
        dim: int,
        name: str | None = None,
        *,
        watch: Watch | None = None,
    ) -> Space:
        """Add a space whose vectors are made of another space's, and fill it; no encoder runs.

        The transform is fitted once, on up to 100,000 of the vectors that are stored, and kept
        with the collection: from then on new images get their vector in both spaces. Stopped
        anywhere and called again, it goes on with the same transform.

        Args:
            base: name of a space that an encoder fills.
            kind: ``truncate``, ``pca`` or ``whiten``; see
                :class:`retrieval.store.transforms.Transform`.
            dim: length of the new vectors.
            name: of the new space; by default as ``BASE-first128``, ``BASE-pca128``,
                ``BASE-white128``.
            watch: called with the number of images done and the number of all to do.

        Raises:
            UnknownSpace: if there is no such space.
            SpaceMismatch: if the name belongs to another space.
            CollectionError: if the base is derived itself, ``dim`` is larger than its, or there
                are fewer than ``2 * dim`` vectors to fit axes to.
        """
        made = derive(self.store.again(), base, kind, dim, name, watch)
        with self._lock:
            self.store.refresh()
        return made

    def encoder(
        self,
        space: str,
        load: Callable[[str], Encoder] = load,
        *,
        precision: str | None = None,
    ) -> Encoder:
        """The encoder that belongs to ``space``, loaded once and checked against the collection.

        Args:
            space: name of the space.
            load: loads an encoder by name, if this object does not hold it yet.
            precision: that ``load`` loads for; an encoder that was loaded for another one is
                loaded again, unless :meth:`use` was given it. None takes any.
        """
        with self._lock:
            held = self._precisions.get(space, precision)
            if space not in self._encoders or precision not in (None, held):
                found = self.store.space(space)
                self._encoders[space] = (
                    encoder_of(found, load)
                    if found.base is None
                    else encoder_of_derived(
                        self.store, found, self.encoder(found.base, load, precision=precision)
                    )
                )
                self._precisions[space] = precision or "fp32"
            return self._encoders[space]

    def use(self, encoder: Encoder) -> None:
        """Search the space of ``encoder`` with this object, as for an encoder of your own.

        Raises:
            UnknownSpace: if the collection has no space of the encoder's name.
            SpaceMismatch: if the space was made by another identity.
        """
        with self._lock:
            check_identity(self.store.space(encoder.spec.name), encoder)
            self._encoders[encoder.spec.name] = encoder
            self._precisions.pop(encoder.spec.name, None)
