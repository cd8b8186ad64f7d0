"""The runtime for hub checkpoints: torch and transformers, fp32."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval import settings
from retrieval.encoders.base import EncoderSpec, unit_rows
from retrieval.encoders.checkpoint import family_of, weight_files, weights_hash
from retrieval.encoders.tokens import Tokenizer
from retrieval.errors import EncoderError, EncoderUnavailable
from retrieval.types import Embeddings

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
BATCH_SIZE = 32


def require() -> None:
    """Check, without importing them, that the packages of this runtime are installed.

    Raises:
        EncoderUnavailable: naming what is missing and how to install it.
    """
    names = ("torch", "transformers", "huggingface_hub")
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise EncoderUnavailable(
            f"this encoder needs {', '.join(missing)}: pip install torch transformers. "
            "The encoders pocket-visual and pocket-text need neither."
        )


def load(folder: Path, spec: EncoderSpec, *, device: str | None = None) -> TransformersEncoder:
    """Load a checkpoint folder; nothing is downloaded and no code of it runs.

    Args:
        folder: a checkpoint with ``config.json`` and safetensors.
        spec: its facts. The loaded encoder's ``spec`` also has the logit scale and bias that the
            weights hold.
        device: ``cuda``, ``mps``, ``cpu``, …; by default the first of these that is there.

    Returns:
        A :class:`TransformersTextEncoder` where the family has a text side.

    Raises:
        EncoderUnavailable: if torch or transformers is not installed.
        EncoderError: if the folder is damaged, or holds something else than ``spec`` says.
    """
    require()
    import torch

    family = family_of(folder)
    digest = weights_hash(weight_files(folder), settings.load().cache_dir)
    model = _model(folder, family.model_class)
    where = torch.device(device or _best_device())
    scale, bias = _logits(model)
    spec = replace(spec, logit_scale=scale, logit_bias=bias)
    if family.text is None:
        return TransformersEncoder(spec, digest, model.to(where), where)
    context = model.config.text_config.max_position_embeddings
    tokenizer = Tokenizer(folder, family.text, context)
    return TransformersTextEncoder(spec, digest, model.to(where), where, tokenizer)


class TransformersEncoder:
    """An image encoder that runs a transformers model.

    One forward pass at a time runs on the model; preprocessing runs in the callers' threads.
    """

    def __init__(self, spec: EncoderSpec, digest: str, model: Any, device: Any) -> None:
        """Wrap a loaded model; :func:`load` makes the parts fit each other."""
        self._spec = spec
        self._digest = digest
        self._model = model
        self._device = device
        self._lock = threading.Lock()
        self._batch_size = BATCH_SIZE

    @property
    def spec(self) -> EncoderSpec:
        """The facts of this encoder."""
        return self._spec

    @property
    def weights_hash(self) -> str:
        """BLAKE2b-128 over the safetensors, 32 hex digits."""
        return self._digest

    @property
    def runtime(self) -> str:
        """``torch-cpu``, ``torch-cuda`` or ``torch-mps``."""
        return f"torch-{self._device.type}"

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """Embed RGB pictures of any size: float32 ``[n, dim]``, unit rows, in the order given.

        Raises:
            EncoderError: if the computation fails.
        """
        return self._in_batches(images, self._image_features)

    def _image_features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        pixels = self._spec.preprocess(images)
        if "text" in self._spec.modalities:
            return self._forward(self._model.get_image_features, pixel_values=pixels)
        # DINOv2's pooled output is the CLS token after the final layer norm.
        return self._forward(self._model, pixel_values=pixels)

    def _forward(self, run: Callable[..., Any], **inputs: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        # fp32 means fp32: on a GPU convolutions would else round their inputs to 10 bits (TF32).
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with self._lock, torch.inference_mode(), exact:
            tensors = {
                name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()
            }
            rows: NDArray[np.float32] = run(**tensors).pooler_output.cpu().numpy()
        return rows

    def _in_batches(
        self, items: Sequence[T], features: Callable[[Sequence[T]], NDArray[np.float32]]
    ) -> Embeddings:
        """Run ``features`` over slices that fit into memory, halving them when one does not."""
        out = np.empty((len(items), self._spec.dim), dtype=np.float32)
        done = 0
        while done < len(items):
            batch = items[done : done + self._batch_size]
            try:
                out[done : done + len(batch)] = unit_rows(features(batch))
            except (RuntimeError, MemoryError, ValueError) as error:
                if not _out_of_memory(error) or len(batch) == 1:
                    raise EncoderError(f"{self._spec.name} failed: {error}") from error
                self._batch_size = len(batch) // 2
                continue
            done += len(batch)
        return out


class TransformersTextEncoder(TransformersEncoder):
    """An encoder whose space also holds text."""

    def __init__(
        self, spec: EncoderSpec, digest: str, model: Any, device: Any, tokenizer: Tokenizer
    ) -> None:
        """Wrap a loaded model and its tokenizer; :func:`load` makes the parts fit each other."""
        super().__init__(spec, digest, model, device)
        self._tokenizer = tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 ``[n, dim]``, unit rows; texts too long for the network are cut.

        Raises:
            EncoderError: if the computation fails.
        """
        return self._in_batches(texts, self._text_features)

    def _text_features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._forward(self._model.get_text_features, input_ids=self._tokenizer(texts))


def _model(folder: Path, class_name: str) -> Any:
    """Read the weights into the model class, refusing what does not fit exactly."""
    import torch
    import transformers
    from safetensors import SafetensorError

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
    if absent := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise EncoderError(
            f"the checkpoint in {folder} lacks weights of {class_name}: {', '.join(absent[:3])}…"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bar over local tensors off the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _logits(model: Any) -> tuple[float | None, float | None]:
    """Scale and bias of the model's own image-text probability, where it has them."""
    scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    return (
        None if scale is None else float(scale.detach().exp()),
        None if bias is None else float(bias.detach()),
    )


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
