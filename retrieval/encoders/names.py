"""What a name of an encoder asks for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

POOLINGS = ("cls", "mean", "cls+mean", "gem")

_POOLED = re.compile(rf"(.+):({'|'.join(map(re.escape, POOLINGS))})")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A name, taken apart.

    Attributes:
        kind: ``folder``: a folder or an ONNX file that is there; ``class``: ``module:Class``;
            ``hub``: ``owner/name`` or ``owner/name@revision``; ``name``: anything else, to be
            looked up.
        base: the name without pooling and revision; a folder as absolute path.
        pooling: what stands behind the last colon, if it is one of :data:`POOLINGS`.
        revision: commit, tag or branch of a hub repository.
    """

    kind: Literal["folder", "class", "hub", "name"]
    base: str
    pooling: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """The whole name again; equal for two ways to write the same."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.base}{revision}" + (f":{self.pooling}" if self.pooling else "")


def parse(name: str) -> Asked:
    """Take a name apart; a folder or file that is there comes before all but a catalogue's name.

    A collection names its encoders so: what they mean must not depend on the current folder.

    The forms: a catalogue's name, ``owner/name[@revision]`` of the hub, a path, each with
    ``:cls``, ``:mean``, ``:cls+mean`` or ``:gem`` behind it if another pooling is wanted; or
    ``module:Class`` for one's own.
    """
    base, pooling = name, None
    # Unlike those of Path, these functions take a ~nobody and names too long for a path.
    if not os.path.exists(os.path.expanduser(name)) and (pooled := _POOLED.fullmatch(name)):
        base, pooling = pooled.groups()
    path = Path(os.path.expanduser(base))
    folder = base != "" and os.path.isdir(path) and not _listed(base)
    if folder or path.suffix == ".onnx" or path.is_absolute() or base.startswith("."):
        return Asked("folder", str(path.resolve()), pooling)
    if pooling is None and _CLASS.fullmatch(base):
        return Asked("class", base)
    if _REPOSITORY.fullmatch(base):
        repository, _, revision = base.partition("@")
        return Asked("hub", repository, pooling, revision or None)
    return Asked("name", base, pooling)


def _listed(name: str) -> bool:
    """Whether the catalogue has that name; reading it takes time, so ask only where it matters."""
    from retrieval.encoders.catalogue import specs

    return name in specs()
