"""Vision models of transformers about which nothing is written down here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

from retrieval.errors import EncoderError


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model gives for a picture.

    Attributes:
        prefix: tokens before those of the places.
        rows: places along a side.
        width: length of a token.
        pooled: whether it also gives one vector of that length.
    """

    prefix: int
    rows: int
    width: int
    pooled: bool


class Blueprint:
    """A model without weights: it takes no time and no memory to ask it what it gives."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration.

        Raises:
            EncoderError: if it is of no vision model of the installed transformers, or of one
                whose output are the objects in a picture.
        """
        try:
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            with torch.device("meta"):
                self._model: Any = transformers.AutoModel.from_config(config).eval()
        except (ImportError, OSError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{folder}: transformers {transformers.__version__} cannot open it: {error}"
            ) from error
        kind = config.model_type
        if (
            self._model.main_input_name != "pixel_values"
            or kind in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES
        ):
            raise EncoderError(
                f"{folder} holds a checkpoint of type {kind!r}, which is no image encoder"
            )
        self._folder = folder
        self.label = type(self._model).__name__.removesuffix("Model")
        self.pooler = [n for n, _ in self._model.named_parameters() if n.startswith("pooler.")]

    def layout(self, side: int) -> Layout:
        """What comes out for squares of ``side`` pixels.

        Raises:
            EncoderError: if it does not take them, or what comes out are not the tokens or the
                map of a square of places.
        """
        with torch.inference_mode():
            try:
                found = self._model(pixel_values=torch.empty(2, 3, side, side, device="meta"))
                last, pooled = found.last_hidden_state, getattr(found, "pooler_output", None)
            except Exception as error:  # whatever a stranger's forward pass raises
                raise EncoderError(
                    f"{self._folder}: {self.label} of transformers gives no tokens for pictures of "
                    f"{side} px: {error}"
                ) from error
        shape = tuple(last.shape)
        if len(shape) == 4 and shape[2] == shape[3]:
            rows, width, prefix = shape[2], shape[1], 0
        elif len(shape) == 3:
            rows, width = math.isqrt(shape[1]), shape[2]
            prefix = shape[1] - rows * rows
        else:
            rows = 0
        if rows == 0 or shape[0] != 2:
            raise EncoderError(
                f"{self._folder}: {self.label} of transformers gives an output of shape "
                f"{list(shape)} for two pictures, from which no embedding can be made"
            )
        whole = isinstance(pooled, Tensor) and pooled.numel() == 2 * width
        return Layout(prefix, rows, width, whole)
