"""Reading weights into the classes of transformers, refusing what does not fit exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging

from retrieval.errors import EncoderError


def read(folder: Path, class_name: str) -> Any:
    """The model of a checkpoint in fp32, in evaluation mode.

    A pooler that the checkpoint does not hold is left out: classifiers, and what was trained
    without labels, often come without.

    Raises:
        EncoderError: if weights are damaged, missing or of another shape.
    """
    try:
        with _quiet():
            model, report = getattr(transformers, class_name).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"the checkpoint in {folder} is damaged or incomplete ({error}); delete it and get it "
            "again"
        ) from error
    # transformers fills weights that the file lacks with random numbers and only logs it.
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent and all(name.startswith("pooler.") for name in absent):
        model.pooler = None
    elif absent:
        raise EncoderError(
            f"the checkpoint in {folder} lacks weights of {class_name}: {', '.join(absent[:3])}…"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bar, and its table of what becomes an error, off the terminal."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
