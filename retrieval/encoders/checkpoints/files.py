"""The files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retrieval.errors import EncoderError


def weight_files(folder: Path, name: str = "model") -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in a fixed order.

    Raises:
        EncoderError: if there are none, or some that the index names are missing.
    """
    index = folder / f"{name}.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(folder, index.name).get("weight_map", {}).values()))
    else:
        names = [f"{name}.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise EncoderError(
            f"{folder} lacks {', '.join(missing) or 'weights'}; only safetensors are loaded "
            "(save_pretrained of a recent transformers writes them)"
        )
    return tuple(folder / name for name in names)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One JSON file of the folder; empty where it is missing, unless it is ``config.json``.

    Raises:
        EncoderError: if it is damaged, or there is no ``config.json``.
    """
    path = folder / name
    if not path.is_file() and name != "config.json":
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"{folder} is no checkpoint folder: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return loaded
