"""From trained networks to a folder that loads as an encoder, and the report on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexers.distill import int8
from indexers.distill.agreement import Figures, compare_speed
from indexers.distill.assess import Assessment
from indexers.distill.material import Material
from indexers.distill.photos import Shelf
from indexers.distill.report import DistillReport, Progress
from indexers.distill.texts import RULE
from indexers.distill.workplace import DISTILLED, Workplace
from retrieval import settings
from retrieval.encoders import Encoder, EncoderSpec, Preprocess, load
from retrieval.encoders.checkpoints import Checkpoint
from retrieval.encoders.checkpoints.portable import facts
from retrieval.encoders.digests import weights_hash
from retrieval.encoders.export import export
from retrieval.encoders.made import write_new
from retrieval.encoders.preprocess import affine

if TYPE_CHECKING:
    from indexers.distill.training.stages import Trained

_CALIBRATED_ON, _TRIED_ON = 256, 256


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything that a finished student is made of.

    Attributes:
        trained: its networks.
        teacher: whom it imitates.
        preprocess: how it sees pictures.
        material: what it learnt from, and what was held out.
        shelf: pixels and the teacher's answers.
        place: where it goes.
        seed: of the choice of what is compared.
        watch: called with how far the comparison is.
    """

    trained: Trained
    teacher: Encoder
    preprocess: Preprocess
    material: Material
    shelf: Shelf
    place: Workplace
    seed: int
    watch: Callable[[Progress], None]

    def __call__(self) -> DistillReport:
        """Export the student, take int8 where it pays, compare it with its teacher, move in.

        Raises:
            EncoderError: if it cannot be exported or written.
        """
        exported = self._export()
        pays, int8_figures = self._quantise(exported)
        if pays:
            (exported / "image.onnx").unlink()
        small = exported / ("image.int8.onnx" if pays else "image.onnx")
        files = {"image.onnx": small}
        if self.trained.tokenizer:
            files |= {name: exported / name for name in ("text.onnx", "tokenizer.json")}
        digest = weights_hash(tuple(files.values()), settings.load().cache_dir)
        size_mb = round(sum(path.stat().st_size for path in files.values()) / 1e6, 1)
        rule = RULE if self.trained.tokenizer else None
        told = facts(replace(self._spec(), size_mb=size_mb), digest, rule)
        tried = _clean(self.place.training / "tried")
        _write(tried, files, told)
        report = self._compare(load(str(tried)), "int8" if pays else "fp32", int8_figures)
        told[DISTILLED] = {"plan": self.place.plan, "report": asdict(report)}
        _write(self.place.folder, files, told)
        return report

    def _export(self) -> Path:
        """A folder with the networks in fp32, which have been compared with those in torch."""
        folder = _clean(self.place.training / "exported")
        tokenizer = self.trained.tokenizer
        checkpoint = Checkpoint(
            folder=self.place.training,
            spec=self._spec(),
            files=self.trained.files,
            towers=lambda: self.trained.towers,
            tokenizer=None if tokenizer is None else lambda: tokenizer,
        )
        export(checkpoint, folder)
        return folder

    def _quantise(self, exported: Path) -> tuple[bool, Figures]:
        """Write ``image.int8.onnx``, and say whether it pays."""
        whole, small = exported / "image.onnx", exported / "image.int8.onnx"
        learnt, unseen = self._photos(held_out=False), self._photos(held_out=True)[:_TRIED_ON]
        int8.quantise(whole, small, self._pixels(learnt[:_CALIBRATED_ON]))
        return int8.pays(whole, small, self._pixels(unseen), self.shelf.targets[0, unseen])

    def _compare(self, student: Encoder, precision: str, int8_figures: Figures) -> DistillReport:
        def tell(done: int, total: int) -> None:
            self.watch(Progress("student is compared", done, total))

        seen = Assessment(student, self.material, self.shelf, self.seed, tell)
        pictures = [self.material.photos[at].picture() for at in seen.unseen[:16]]
        return DistillReport(
            out=str(self.place.folder),
            teacher=self.teacher.spec.name,
            photos=len(self._photos(held_out=False)),
            held_out=len(self._photos(held_out=True)),
            failed=int((~self.shelf.usable()).sum()),
            texts=len(self.material.learn),
            parameters=sum(weight.numel() for weight in self.trained.towers.image.parameters()),
            precision=precision,
            int8=int8_figures,
            image=seen.images(),
            knn=seen.labels(),
            text=seen.texts(self.trained.unseen),
            speed=compare_speed(student, self.teacher, pictures),
        )

    def _spec(self) -> EncoderSpec:
        teacher, has_text = self.teacher.spec, self.trained.tokenizer is not None
        return EncoderSpec(
            name=f"{teacher.name}, distilled",
            family="EfficientNet-Lite0, distilled",
            dim=teacher.dim,
            modalities=("image", "text") if has_text else ("image",),
            preprocess=self.preprocess,
            pooling="mean, trained head",
            source=f"distilled from {teacher.name}",
            revision="local",
            licence=teacher.licence,
            size_mb=0,
            summary=f"a small student of {teacher.name}, trained on one's own pictures",
            prompt=teacher.prompt,
            terms=teacher.terms,
            library="onnx",
            tokenizer=f"BPE, {RULE.context} tokens" if has_text else "",
        )

    def _photos(self, *, held_out: bool) -> NDArray[np.int64]:
        """Photos that can be used and are, or are not, held out."""
        kept = np.array([photo.held_out == held_out for photo in self.material.photos])
        return np.flatnonzero(self.shelf.usable() & kept)

    def _pixels(self, photos: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Input of the network ``[n, 3, side, side]`` for photos as they are."""
        scale, shift = affine(self.preprocess.mean, self.preprocess.std)
        levels = self.shelf.pixels[0, photos]
        return np.ascontiguousarray((levels * scale - shift).transpose(0, 3, 1, 2))


def _write(folder: Path, files: Mapping[str, Path], told: Mapping[str, Any]) -> None:
    """Write a portable folder in one move."""

    def make(empty: Path) -> Mapping[str, Any]:
        for name, path in files.items():
            shutil.copyfile(path, empty / name)
        return told

    write_new(folder, make)


def _clean(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
