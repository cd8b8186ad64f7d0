"""Packages that only some encoders need."""

from __future__ import annotations

import importlib.util

from retrieval.errors import EncoderUnavailable

_INSTALLED_AS = {"open_clip": "open_clip_torch"}


def missing(*packages: str) -> list[str]:
    """Those of ``packages`` that are not installed, under the names that pip knows; no import."""
    return [_INSTALLED_AS.get(name, name) for name in packages if not _there(name)]


def require(*packages: str) -> None:
    """Check, without importing them, that packages are installed.

    Raises:
        EncoderUnavailable: naming what is missing and how to install it.
    """
    if absent := missing(*packages):
        raise EncoderUnavailable(
            f"this encoder needs {', '.join(absent)}: pip install {' '.join(absent)}. "
            "The encoders pocket-visual and pocket-text need neither."
        )


def _there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a spec, as a test leaves it to say "not installed"
        return False
