"""What a repository holds, as the hub tells it or as the local cache remembers it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.hub.choice import INDEX
from retrieval.encoders.hub.reasons import explained
from retrieval.encoders.hub.transfer import ANSWER_TIMEOUT_S, repository


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one repository at one commit.

    Attributes:
        commit: 40 hex digits.
        names: every file's, as ``onnx/model.onnx``.
        large: those that the hub keeps by SHA-256.
    """

    commit: str
    names: Collection[str]
    large: Collection[str] = ()


def ask(source: str, revision: str) -> Listing:
    """Ask the hub once, and never wait longer than :data:`ANSWER_TIMEOUT_S`.

    In a thread of its own, since a name lookup cannot be given a timeout; the client library
    alone would retry an unreachable hub for 20 to 90 seconds.

    Raises:
        EncoderUnavailable: saying why there is no answer.
    """
    import huggingface_hub

    answers: list[Any] = []

    def listen() -> None:
        try:
            answer: Any = huggingface_hub.HfApi().model_info(
                source, revision=revision, timeout=ANSWER_TIMEOUT_S, files_metadata=True
            )
        except Exception as error:
            answer = error
        answers.append(answer)

    thread = threading.Thread(target=listen, name="hub-listing", daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    answer = answers[0] if answers else TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:g} s")
    if isinstance(answer, Exception):
        raise explained(source, revision, answer) from answer
    files = answer.siblings or []
    large = {file.rfilename for file in files if file.lfs}
    return Listing(answer.sha, {file.rfilename for file in files}, large)


def snapshot(source: str, revision: str) -> Path | None:
    """The folder of the local cache for a revision, whole or not; None if there is none."""
    home = repository(source)
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        ref = home / "refs" / revision
        if not ref.is_file():
            return None
        revision = ref.read_text().strip()
    folder = home / "snapshots" / revision
    return folder if folder.is_dir() else None


def remembered(source: str, commit: str) -> Listing | None:
    """The listing that the client kept when it downloaded; None if it kept none."""
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = huggingface_hub.get_cached_repo_tree(source, revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    return Listing(commit, {file.path for file in tree})


def on_disk(folder: Path) -> Listing:
    """What a snapshot folder has; a link whose file is gone does not count.

    Nor do weights in several files of which some are missing.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if INDEX in names and not _parts(folder / INDEX) <= names:
        names.remove(INDEX)
    return Listing(folder.name, names)


def _parts(index: Path) -> set[str]:
    """The files that an index names, itself among them; more than there can be if it is damaged."""
    try:
        return {index.name, *json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        return {""}
