"""Getting a checkpoint folder from the model hub, or saying within seconds why not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from retrieval.encoders.checkpoint import weight_files
from retrieval.errors import EncoderError, EncoderUnavailable

PROBE_TIMEOUT_S = 5.0
_WANTED = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
)
_WITHOUT_HUB = (
    "Use --encoder pocket-visual or pocket-text, which download nothing, or copy the checkpoint "
    "folder here and give its path as --encoder."
)


def fetch(source: str, revision: str = "main") -> Path:
    """The folder of a hub repository, downloaded once into the hub's own cache.

    A copy in the cache is used without asking the network. Otherwise the hub is asked once, with
    a limit of :data:`PROBE_TIMEOUT_S`, before the download begins: the client library alone would
    retry an unreachable hub for 20 to 90 seconds. Only safetensors, JSON and the tokenizer are
    downloaded. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are respected.

    Args:
        source: ``owner/name``.
        revision: commit, tag or branch.

    Raises:
        EncoderUnavailable: if the folder is not here and cannot be had; the message says why and
            what to do.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise EncoderUnavailable(
            f"{source} is on the model hub, whose client is not installed: "
            "pip install huggingface_hub"
        ) from error
    if cached := _cached(source, revision):
        return cached
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EncoderUnavailable(
            f"{source} is not in the local cache and HF_HUB_OFFLINE forbids downloads: unset it "
            f"once to download. {_WITHOUT_HUB}"
        )
    _probe(source, revision)
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                source,
                revision=revision,
                allow_patterns=list(_WANTED),
                etag_timeout=PROBE_TIMEOUT_S,
            )
        )
    except Exception as error:
        raise _explained(source, revision, error) from error
    try:
        weight_files(folder)
    except EncoderError as error:
        raise EncoderUnavailable(f"{source} on the hub has no usable weights: {error}") from error
    return folder


def _cached(source: str, revision: str) -> Path | None:
    """The repository's folder in the local cache if all of it is there."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                source, revision=revision, allow_patterns=list(_WANTED), local_files_only=True
            )
        )
        weight_files(folder)
    except HFValidationError as error:
        raise EncoderUnavailable(f"{source!r} is not a repository name: {error}") from error
    except (LocalEntryNotFoundError, EncoderError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _probe(source: str, revision: str) -> None:
    """Ask the hub once whether it has the repository, and never wait longer than the limit.

    In a thread of its own, since a name lookup cannot be given a timeout.
    """
    import huggingface_hub

    failures: list[Exception] = []

    def ask() -> None:
        try:
            huggingface_hub.HfApi().model_info(
                source, revision=revision, timeout=PROBE_TIMEOUT_S - 1
            )
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=ask, name="hub-probe", daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    if thread.is_alive():
        late = TimeoutError(f"no answer within {PROBE_TIMEOUT_S:g} s")
        raise _explained(source, revision, late)
    if failures:
        raise _explained(source, revision, failures[0]) from failures[0]


def _explained(source: str, revision: str, error: BaseException) -> EncoderUnavailable:
    """The one sentence about what went wrong and what to do about it."""
    from huggingface_hub import constants, errors

    # The client wraps the reason: "not in the cache" from "connection refused" and the like.
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        text = (
            f"{source} is gated: accept its terms on its page at the hub, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{source} has no revision {revision!r} at the hub."
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        text = (
            f"the hub has no repository {source}, or it is private: check the name, or log in "
            "with `hf auth login` or HF_TOKEN."
        )
    elif status is not None:
        text = (
            f"the hub at {constants.ENDPOINT} answered {status} for {source}; try again later. "
            f"{_WITHOUT_HUB}"
        )
    else:
        reason = str(error).strip().splitlines()
        text = (
            f"cannot get {source} from the model hub at {constants.ENDPOINT} "
            f"({reason[0] if reason else type(error).__name__}). {_WITHOUT_HUB}"
        )
    return EncoderUnavailable(text)
