"""From the name of a repository to a whole folder on disk."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.encoders.hub import listing, reasons
from retrieval.encoders.hub.choice import Choice, Kind, choose, why_none
from retrieval.encoders.hub.listing import Listing
from retrieval.encoders.hub.transfer import ANSWER_TIMEOUT_S, make_room, parts_of, pull, repository
from retrieval.errors import EncoderUnavailable

_log = logging.getLogger(__name__)


def fetch(
    source: str, revision: str = "main", *, wanted: Sequence[Kind] = ("safetensors", "onnx")
) -> Path:
    """The folder of a hub repository, downloaded once into the hub client's own cache.

    A whole copy in the cache is used without asking the network, and a copy that may lack
    something (another program downloaded it) where the hub cannot be had. Else the hub is asked
    once, within :data:`~retrieval.encoders.hub.transfer.ANSWER_TIMEOUT_S`, and weights of one
    kind, configuration and tokenizer are downloaded: safetensors, ONNX and JSON, never pickles or
    code. A download that broke off goes on where it stopped, in this process or a later one; of
    several processes one downloads and the others wait; a large file's SHA-256 is checked.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are
    respected. On a terminal the client's progress bars appear on stderr.

    Args:
        source: ``owner/name``.
        revision: commit, tag or branch.
        wanted: kinds of weights that the caller can run, best first; the first that the
            repository has is taken. A folder of our own format is taken in any case.

    Returns:
        The snapshot; :func:`resolved_revision` tells its commit.

    Raises:
        EncoderUnavailable: if the folder is not here and cannot be had; the message says why and
            what to do.
    """
    client = _client(source)
    if folder := _cached(source, revision, wanted):
        return folder
    if client.constants.HF_HUB_OFFLINE:
        if folder := _usable(source, revision, wanted):
            return folder
        raise reasons.offline(source)
    try:
        found = listing.ask(source, revision)
    except EncoderUnavailable as error:
        if folder := _usable(source, revision, wanted):
            _log.warning("using the copy of %s in the local cache: %s", source, error)
            return folder
        raise
    try:
        return _download(source, revision, wanted, found)
    except Exception as error:
        raise reasons.explained(source, revision, error) from error


def resolved_revision(folder: Path) -> str | None:
    """The commit of a folder that :func:`fetch` returned; None for any other folder."""
    from_hub = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if from_hub else None


def _client(source: str) -> Any:
    """The hub's client library, if it is here and ``source`` can be a repository's name."""
    # Else the client tells the hub what is installed, and asks it for a list of agents first.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise EncoderUnavailable(
            f"{source} is on the model hub, whose client is not installed: "
            "pip install huggingface_hub"
        ) from error
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise EncoderUnavailable(f"{source!r} is not a repository name: {error}") from error
    return huggingface_hub


def _cached(source: str, revision: str, wanted: Sequence[Kind]) -> Path | None:
    """The snapshot in the local cache if the listing kept with it says that it is whole."""
    folder = listing.snapshot(source, revision)
    known = folder and listing.remembered(source, folder.name)
    if not folder or not known:
        return None
    # What is here may be the second best kind, taken when the best could not be run.
    for kind in wanted:
        choice = choose(known.names, (kind,), lambda: _is_timm(folder / "config.json"))
        if choice and _has(folder, choice):
            return folder
    return None


def _usable(source: str, revision: str, wanted: Sequence[Kind]) -> Path | None:
    """The snapshot in the local cache if it has weights and their configuration."""
    folder = listing.snapshot(source, revision)
    if not folder:
        return None
    names = listing.on_disk(folder).names
    return folder if choose(names, wanted, lambda: _is_timm(folder / "config.json")) else None


def _download(source: str, revision: str, wanted: Sequence[Kind], found: Listing) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.utils import tqdm

    class Quiet(tqdm):  # type: ignore[misc, unused-ignore]
        """The small files need no bar; the client would show three, even without a terminal."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    choice = choose(
        found.names,
        wanted,
        lambda: _is_timm(Path(hf_hub_download(source, "config.json", revision=found.commit))),
    )
    if choice is None:
        raise EncoderUnavailable(f"{source} cannot be used: {why_none(found.names, wanted)}.")
    here = repository(source) / "snapshots" / found.commit
    large = {*choice.weights, *(name for name in choice.facts if name in found.large)}
    parts = parts_of(
        source, found.commit, [name for name in sorted(large) if not (here / name).is_file()]
    )
    make_room(source, parts)
    for part in parts:
        pull(part)
    folder = Path(
        snapshot_download(
            source,
            revision=revision,
            allow_patterns=[glob.escape(name) for name in choice.files],
            etag_timeout=ANSWER_TIMEOUT_S,
            tqdm_class=Quiet,
        )
    )
    if not _has(folder, choice):
        raise EncoderUnavailable(
            f"the download of {source} broke off: try again, it goes on where it stopped."
        )
    return folder


def _has(folder: Path, choice: Choice) -> bool:
    return all((folder / name).is_file() for name in choice.files)


def _is_timm(config: Path) -> bool:
    """Whether a ``config.json`` is timm's and not transformers'."""
    return config.is_file() and "model_type" not in json.loads(config.read_text(encoding="utf-8"))
