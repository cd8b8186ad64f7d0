"""Settings from the environment, read when asked for and never at import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import SettingsError

DEFAULT_ENCODERS = ("pocket-visual", "pocket-text")
DEFAULT_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment may change.

    Attributes:
        cache_dir: where built graphs and downloaded weights go (``RETRIEVAL_CACHE``).
        encoders: encoders of a new collection (``RETRIEVAL_ENCODERS``, comma-separated).
        max_pixels: larger pictures are refused before decoding (``RETRIEVAL_MAX_PIXELS``).
        index_memory_bytes: what a vector index that was chosen automatically may hold in memory
            (``RETRIEVAL_INDEX_MEMORY_MB``); None for half of the machine's.
    """

    cache_dir: Path
    encoders: tuple[str, ...]
    max_pixels: int
    index_memory_bytes: int | None


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: if a variable makes no sense.
    """
    names = os.environ.get("RETRIEVAL_ENCODERS", "")
    encoders = tuple(name.strip() for name in names.split(",") if name.strip())
    return Settings(
        cache_dir=_cache_dir(),
        encoders=encoders or DEFAULT_ENCODERS,
        max_pixels=_whole("RETRIEVAL_MAX_PIXELS", DEFAULT_MAX_PIXELS),
        index_memory_bytes=_megabytes("RETRIEVAL_INDEX_MEMORY_MB"),
    )


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(f"{name} is a positive whole number, not {text!r}")
    return int(text)


def _megabytes(name: str) -> int | None:
    return _whole(name, 0) * 1_000_000 if os.environ.get(name) else None


def _cache_dir() -> Path:
    if chosen := os.environ.get("RETRIEVAL_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("retrieval", appauthor=False))
