"""Choosing how an encoder runs: the fastest way whose cost in accuracy, measured, is bounded."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval import settings
from retrieval.encoders.build import build
from retrieval.encoders.checkpoints.portable import Portable
from retrieval.encoders.files import put
from retrieval.encoders.runtimes.plan import FP32, Plan, available, best_device, parse
from retrieval.errors import EncoderError
from retrieval.types import Embeddings

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.network import NetworkEncoder

BOUND = 0.005
"""Largest change of a cosine between two pictures that a faster way may cost."""

MOST_PICTURES = 32
_FEWEST_PICTURES = 8
_BATCH = 8
_ROUNDS = 5
_WORTH = 1.05  # a way that gains less than this share is not worth the smallest change
_GRAPH = parse("onnxruntime-fp32")
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf")

_log = logging.getLogger(__name__)
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to run an encoder, as measured.

    Attributes:
        plan: runtime and precision, as ``openvino-bf16``.
        images_per_s: pictures of the network's own size through ``encode_images``, on all cores;
            0 where it was not raced.
        change: largest change of a cosine between two pictures, one or both encoded this way.
        failure: why it cannot be used at all; empty where it can.
    """

    plan: str
    images_per_s: float = 0.0
    change: float = 0.0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
        plan: the winner.
        trials: every way that was tried, fp32 first.
        pictures: on how many of the user's pictures the change was measured.
        bound: the largest change that was allowed.
    """

    plan: str
    trials: tuple[Trial, ...]
    pictures: int
    bound: float = BOUND

    def __str__(self) -> str:
        """One line for people."""
        if not self.trials:
            return f"{self.plan}: {self.pictures} pictures are too few to measure others"
        by_plan = {trial.plan: trial for trial in self.trials}
        chosen, plain = by_plan[self.plan], self.trials[0]
        if chosen is plain:
            return (
                f"{self.plan}: nothing here is faster with similarities changed by ≤ {self.bound}"
            )
        ratio = chosen.images_per_s / plain.images_per_s
        return (
            f"{self.plan}: {ratio:.1f}× fp32, similarities between {self.pictures} of your "
            f"pictures changed by at most {chosen.change:.4f}"
        )


def fastest(
    checkpoint: Checkpoint | Portable,
    pictures: Sequence[Image.Image],
    *,
    device: str | None = None,
    bound: float = BOUND,
    tell: Tell | None = None,
) -> tuple[NetworkEncoder, Choice]:
    """Build the checkpoint in every way that can run here, and keep the best.

    What won on this machine is remembered with the weights, so that the next start only measures
    its change on the pictures at hand.

    Args:
        checkpoint: what to run.
        pictures: some of the user's own, as different as they are; up to 32 are used.
        device: where; by default the best there is.
        bound: largest allowed change of a cosine between two pictures.
        tell: called with a line about each step.

    Raises:
        EncoderError: if not even fp32 runs.
    """
    pictures = pictures[:MOST_PICTURES]
    say = tell or (lambda line: _log.info("%s", line))
    plans = _plans(checkpoint, device)
    reference = build(checkpoint, plans[0], device)
    if len(pictures) < _FEWEST_PICTURES:
        return reference, Choice(str(plans[0]), (), len(pictures), bound)
    if len(plans) == 1:
        return reference, Choice(str(plans[0]), (Trial(str(plans[0])),), len(pictures), bound)
    race = _Race(checkpoint, pictures, device, bound, say, reference, plans)
    note = _note(checkpoint, plans, device)
    if (known := _recall(note, plans)) and (again := race.confirm(known)):
        return again
    encoder, choice = race.run()
    try:
        put(
            note,
            json.dumps({"plan": choice.plan, "trials": list(map(asdict, choice.trials))}).encode(),
        )
    except OSError as error:
        _log.warning("cannot remember the fastest way: %s", error)
    return encoder, choice


def _plans(checkpoint: Checkpoint | Portable, device: str | None) -> list[Plan]:
    """What can run here, an fp32 plan first, also where that one will say why it cannot."""
    if not isinstance(checkpoint, Portable):
        return available(device) or [FP32]
    # Torch may have a better device than the runtimes that take ONNX graphs.
    plans = available(device or best_device(_GRAPH))
    return [plan for plan in plans if not plan.runtime.startswith("torch")] or [_GRAPH]


class _Race:
    """All ways of one checkpoint on one set of pictures; the first plan is the reference."""

    def __init__(
        self,
        checkpoint: Checkpoint | Portable,
        pictures: Sequence[Image.Image],
        device: str | None,
        bound: float,
        say: Tell,
        reference: NetworkEncoder,
        plans: Sequence[Plan],
    ) -> None:
        self.checkpoint = checkpoint
        self.pictures = pictures
        self.device = device
        self.bound = bound
        self.say = say
        self.plans = plans
        self.reference = reference
        self.expected = reference.encode_images(pictures)

    def confirm(self, known: Choice) -> tuple[NetworkEncoder, Choice] | None:
        """The way that won before, if it is as exact on these pictures."""
        if known.plan == str(self.plans[0]):
            encoder, change = self.reference, 0.0
        else:
            tried = self._try(parse(known.plan))
            if isinstance(tried, Trial):
                return None
            encoder, change = tried
        trials = tuple(
            Trial(each.plan, each.images_per_s, change, "") if each.plan == known.plan else each
            for each in known.trials
        )
        return encoder, Choice(known.plan, trials, len(self.pictures), self.bound)

    def run(self) -> tuple[NetworkEncoder, Choice]:
        """Try and time all of them."""
        plain = str(self.plans[0])
        encoders, changes = {plain: self.reference}, {plain: 0.0}
        trials: list[Trial] = []
        for plan in self.plans[1:]:
            self.say(f"{self.checkpoint.spec.name}: trying {plan}")
            tried = self._try(plan)
            if isinstance(tried, Trial):
                trials.append(tried)
            else:
                encoders[str(plan)], changes[str(plan)] = tried
        rates = _rates(encoders, self.pictures)
        best = max(rates, key=rates.__getitem__)
        if rates[best] < _WORTH * rates[plain]:
            best = plain
        raced = [Trial(plan, round(rate, 2), changes[plan]) for plan, rate in rates.items()]
        return encoders[best], Choice(best, (*raced, *trials), len(self.pictures), self.bound)

    def _try(self, plan: Plan) -> tuple[NetworkEncoder, float] | Trial:
        """The encoder and its change, or why it is out."""
        try:
            # Half of the pictures calibrate, where a plan wants that, so that the others tell.
            encoder = build(self.checkpoint, plan, self.device, self.pictures[::2])
            change = similarity_change(self.expected, encoder.encode_images(self.pictures))
        except (EncoderError, MemoryError) as error:
            return Trial(str(plan), failure=str(error) or "not enough memory")
        if not change <= self.bound:
            failure = f"changes similarities by {change:.4f}, more than {self.bound}"
            return Trial(str(plan), change=change, failure=failure)
        return encoder, change


def similarity_change(expected: Embeddings, found: Embeddings) -> float:
    """Largest change of a cosine between two pictures when one or both are ``found``.

    Args:
        expected: unit rows ``[n, dim]`` of the reference.
        found: the same pictures encoded another way.
    """
    before = expected @ expected.T
    return float(
        max(np.abs(found @ expected.T - before).max(), np.abs(found @ found.T - before).max())
    )


def _rates(
    encoders: Mapping[str, NetworkEncoder], pictures: Sequence[Image.Image]
) -> dict[str, float]:
    """Pictures a second by name: medians over interleaved rounds, as ingestion's threads call.

    Who is less than half as fast as the best is out of the later rounds; the first one stays.
    """
    batch = [_small(image, encoders) for image in pictures[:_BATCH]]
    threads = min(4, settings.cores())
    times: dict[str, list[float]] = {name: [] for name in encoders}
    running = list(encoders)
    with ThreadPoolExecutor(threads) as pool:
        for turn in range(_ROUNDS):
            for name in list(running):
                started = time.perf_counter()
                try:
                    list(pool.map(encoders[name].encode_images, [batch] * threads))
                except (EncoderError, MemoryError) as error:
                    if name == next(iter(encoders)):
                        raise
                    _log.warning("%s is out of the race: %s", name, error)
                    running.remove(name)
                    del times[name]
                    continue
                if turn > 0:  # the first warms up
                    times[name].append(time.perf_counter() - started)
            if turn > 0:
                medians = {name: statistics.median(times[name]) for name in running}
                best = min(medians.values())
                running = [n for n in running if medians[n] < 2 * best or n == next(iter(encoders))]
    work = len(batch) * threads
    return {name: work / statistics.median(each) for name, each in times.items()}


def _small(image: Image.Image, encoders: Mapping[str, NetworkEncoder]) -> Image.Image:
    """The picture at the network's size, so that decoding's share of resizing is not timed."""
    preprocess = next(iter(encoders.values())).spec.preprocess
    side = preprocess.size if preprocess else 224
    return image.resize((side, side))


def _note(checkpoint: Checkpoint | Portable, plans: Sequence[Plan], device: str | None) -> Path:
    """Where the winner on this machine is remembered."""
    preprocess = checkpoint.spec.preprocess
    facts = [
        checkpoint.weights_hash,
        preprocess.hash if preprocess else "",
        checkpoint.spec.pooling,
        platform.machine(),
        _processor(),
        str(settings.cores()),
        device or "",
        *map(str, plans),
        *(f"{name} {_version(name)}" for name in _PACKAGES),
    ]
    key = hashlib.blake2b("\0".join(facts).encode(), digest_size=12).hexdigest()
    return settings.load().cache_dir / "choices" / f"{key}.json"


def _recall(note: Path, plans: Sequence[Plan]) -> Choice | None:
    """What won before; None if nothing is known, or the note is damaged."""
    try:
        known = json.loads(note.read_bytes())
        trials = tuple(Trial(**trial) for trial in known["trials"])
        raced = {trial.plan for trial in trials if trial.images_per_s > 0}
        whole = {known["plan"], str(plans[0])} <= raced and trials[0].plan == str(plans[0])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Choice(known["plan"], trials, 0) if whole else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = {line.split(":", 1)[0].strip(): line for line in lines if ":" in line}
    return facts.get("model name", "") + facts.get("flags", "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
