"""Why something cannot be had from the hub, in one sentence, with what to do about it."""

from __future__ import annotations

import errno
from typing import Any

from retrieval.errors import EncoderUnavailable

_WITHOUT_HUB = (
    "Use --encoder pocket-visual or pocket-text, which download nothing, or copy the checkpoint "
    "folder here and give its path as --encoder."
)
MAKE_ROOM = "make room there, or set HF_HOME to a folder on a larger disk."
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def no_room(error: BaseException) -> bool:
    """Whether ``error`` says that a file does not fit on the disk."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def offline(source: str) -> EncoderUnavailable:
    """The user forbade the network, and the cache has no whole copy."""
    return EncoderUnavailable(
        f"{source} is not in the local cache and HF_HUB_OFFLINE forbids downloads: unset it "
        f"once to download. {_WITHOUT_HUB}"
    )


def full(source: str, size_bytes: int, place: object, free_bytes: int) -> EncoderUnavailable:
    """The disk has not enough room for what is to be downloaded."""
    return EncoderUnavailable(
        f"{source} needs {megabytes(size_bytes)} MB in {place}, where {megabytes(free_bytes)} MB "
        f"are free: {MAKE_ROOM}"
    )


def megabytes(size_bytes: int) -> str:
    """In MB of a million bytes, as hubs count, with one place where it matters."""
    return f"{size_bytes / 1e6:,.1f}" if size_bytes < 1e8 else f"{size_bytes / 1e6:,.0f}"


def explained(source: str, revision: str, error: BaseException) -> EncoderUnavailable:
    """The one sentence about what went wrong and what to do about it."""
    from huggingface_hub import constants, errors

    # The client wraps the reason: "not in the cache" from "connection refused" and the like.
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, EncoderUnavailable):
        return error
    if isinstance(error, errors.HfHubHTTPError):
        return EncoderUnavailable(_refused(source, revision, error))
    if no_room(error):
        return EncoderUnavailable(
            f"no room for {source} in {constants.HF_HUB_CACHE} ({error}): {MAKE_ROOM}"
        )
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return EncoderUnavailable(
            f"cannot write {source} to {constants.HF_HUB_CACHE} ({error}): set HF_HOME to a folder "
            "that you may write to."
        )
    reason = str(error).strip().splitlines()
    return EncoderUnavailable(
        f"cannot get {source} from the model hub at {_server(error)} "
        f"({reason[0] if reason else type(error).__name__}). {_WITHOUT_HUB}"
    )


def _server(error: Any) -> str:
    """Who did not answer: the hub, or the server that it sends large files from."""
    from huggingface_hub import constants

    try:
        url = error.request.url
        return f"{url.scheme}://{url.netloc.decode()}"
    except (AttributeError, RuntimeError):  # not the HTTP client's, or before any request
        return str(constants.ENDPOINT)


def _refused(source: str, revision: str, error: Any) -> str:
    """The hub answered, but not with what was asked for."""
    from huggingface_hub import constants, errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{source} is gated: accept its terms on its page at the hub, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source} has no revision {revision!r} at the hub: look at its branches and tags."
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return (
            f"the hub has no repository {source}, or it is private: check the name, or log in "
            "with `hf auth login` or HF_TOKEN."
        )
    if status == 401:
        return (
            f"the hub does not accept your token for {source}: make a new one on its page "
            "settings/tokens, then `hf auth login` or set HF_TOKEN."
        )
    if status == 403:
        return (
            f"{constants.ENDPOINT} forbids {source} (403): your token may not read it, or a proxy "
            f"stands between. {_WITHOUT_HUB}"
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        return (
            f"the hub at {constants.ENDPOINT} answered 429: too many requests from here. Try again "
            f"{f'in {wait} s' if wait.isdecimal() else 'in a few minutes'}, or log in with "
            "`hf auth login` or HF_TOKEN, which allows more."
        )
    return (
        f"the hub at {constants.ENDPOINT} answered {status} for {source}; try again later. "
        f"{_WITHOUT_HUB}"
    )
