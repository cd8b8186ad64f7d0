"""Whether a verdict knows a query without an answer, against one cosine as threshold.

    python -m benchmarks.relevance [--data ../shared/data]

Words ask four collections: the test photos of Flickr8k, every tenth of them, those of `clothing`,
and coco128. Right queries are captions of the photos, and words for what is in them. Wrong ones are
captions of other photos, scenes that no test caption names, texts about what cannot be
photographed, random words, and random letters; none of them is among the background's texts.
AUROC is the chance that a right query scores higher than a wrong one. `cosine` is the score of the
best hit; `z-norm`, `t-norm` and `S-norm` are that score as speaker verification would normalise it.

Pictures ask the training photos of `clothing`: its test photos, photos of other sets, its own
photos, and copies of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import relevance_texts as written
from benchmarks.relevance_photos import Photos
from retrieval.encoders import load
from retrieval.encoders.base import unit_rows
from retrieval.encoders.pocket.train.evaluate import COCO_QUERIES
from retrieval.query.background import background, texts
from retrieval.query.relevance import Calibration, calibrate_images, calibrate_texts
from retrieval.types import Embeddings

RESULT = Path(__file__).parent / "results" / "relevance.json"
HITS = 10
MANY = 500
VERDICTS = ("good match", "weak match", "no good match")

Answers = dict[str, NDArray]


def shares(found: Answers) -> dict[str, float]:
    """How many queries there are, and the share that gets each verdict."""
    given = found["verdict"]
    return {"queries": len(given)} | {v: round(float((given == v).mean()), 4) for v in VERDICTS}


def auroc(right: NDArray, wrong: NDArray) -> float:
    """Chance that a right one is higher, ties counted half."""
    order = np.sort(wrong)
    below = np.searchsorted(order, right, "left") + np.searchsorted(order, right, "right")
    return round(float(below.mean() / 2 / len(wrong)), 4)


def answer(
    calibration: Calibration, queries: Embeddings, stored: Embeddings, size: int | None = None
) -> Answers:
    """What the best hits of every query are worth."""
    out: dict[str, list] = {name: [] for name in ("overall", "verdict", "relevance", "hits", "ms")}
    scores = queries @ stored.T
    for query, row in zip(queries, scores, strict=True):
        best = np.argpartition(-row, HITS)[:HITS]
        best = best[np.argsort(-row[best])]
        vectors, values = stored[best], row[best]
        start = time.perf_counter()
        judged = calibration.judge(query, vectors, values, size or len(stored))
        out["ms"].append(1e3 * (time.perf_counter() - start))
        assert judged is not None
        out["overall"].append(judged.overall)
        out["verdict"].append(judged.verdict)
        out["relevance"].append(judged.relevance)
        out["hits"].append(best)
    return {
        **{name: np.array(values) for name, values in out.items()},
        "cosine": scores.max(axis=1),
        "cosines": np.take_along_axis(scores, np.array(out["hits"]), axis=1),
    }


def classic(queries: Embeddings, stored: Embeddings, cohort: Embeddings) -> Answers:
    """The best score, normalised as it is for voices."""
    scores, others = queries @ stored.T, cohort @ stored.T
    z = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    t = (scores - others.mean(axis=0)) / others.std(axis=0)
    return {"z-norm": z.max(axis=1), "t-norm": t.max(axis=1), "S-norm": (z + t).max(axis=1) / 2}


def questions(photos: Photos) -> dict[str, dict[str, tuple[bool, list[str]]]]:
    """What is asked of every collection: texts by kind, and whether they have an answer."""
    chance = random.Random(0)
    test, train = photos.captions["test"], photos.captions["train"]
    others = [chance.choice(train[name]) for name in chance.sample(sorted(train), 1000)]
    spoken = sorted({w for own in train.values() for c in own for w in c.lower().split()})
    nonsense = {
        "far domains": (False, written.far_domains()),
        "random words": (False, written.random_words(written.english(), MANY, 1)),
        "random letters": (False, written.random_letters(MANY, 2)),
    }
    of_captions = [w for w in spoken if w.isalpha() and len(w) > 2]
    mixed = {"random words of captions": (False, written.random_words(of_captions, MANY, 3))}
    scenes = {"scenes not there": (False, written.FOREIGN_SCENES)}
    elsewhere = {"captions of other photos": (False, others)}
    names = [t.format(word) for word in written.CLOTHES.values() for t in written.TEMPLATES]
    few = {"captions": (True, [c for own in list(test.values())[::10] for c in own])}
    return {
        "flickr8k": {
            "captions": (True, [caption for own in test.values() for caption in own]),
            **nonsense,
            **mixed,
            **scenes,
            **elsewhere,
        },
        "flickr8k, every tenth": {**few, **nonsense, **mixed, **scenes},
        "clothing": {
            "class words": (True, names),
            **nonsense,
            "other phrases": (False, written.OTHER_PHRASES),
            **elsewhere,
        },
        "coco128": {"plain queries": (True, list(COCO_QUERIES)), **nonsense},
    }


def ask_words(
    stored: dict[str, Embeddings], asked: dict[str, dict[str, tuple[bool, list[str]]]]
) -> dict[str, dict[str, tuple[bool, Answers]]]:
    """The answers to all questions, by collection and kind."""
    encoder = load("pocket-text")
    known = {text.lower() for part in texts() for text in part}
    cohort = background(encoder)
    out: dict[str, dict[str, tuple[bool, Answers]]] = {}
    for name, kinds in asked.items():
        calibration = calibrate_texts(stored[name], *cohort)
        assert calibration is not None
        out[name] = {}
        for kind, (right, queries) in kinds.items():
            assert not known & {query.lower() for query in queries}
            vectors = encoder.encode_texts(queries)
            found = answer(calibration, vectors, stored[name])
            out[name][kind] = (right, found | classic(vectors, stored[name], cohort.scenes))
    return out


STATISTICS = ("cosine", "z-norm", "t-norm", "S-norm", "overall")


def by_collection(answers: dict[str, dict[str, tuple[bool, Answers]]]) -> dict:
    """Verdicts on every kind of query, and AUROC of every kind of wrong ones by itself."""
    out: dict = {}
    for name, kinds in answers.items():
        [right] = [found for is_right, found in kinds.values() if is_right]
        out[name] = {}
        for kind, (is_right, found) in kinds.items():
            facts: dict = shares(found)
            if not is_right:
                facts["auroc"] = {s: auroc(right[s], found[s]) for s in STATISTICS}
            out[name][kind] = facts
    return out


NONSENSE = ("far domains", "random words", "random letters")


def one_rule(answers: dict[str, dict[str, tuple[bool, Answers]]]) -> dict:
    """All collections together: one threshold must do for all; nonsense only, each kind alike."""
    rng = np.random.default_rng(0)
    drawn: dict[tuple[str, bool], Answers] = {}
    for name, kinds in answers.items():
        for side in (True, False):
            chosen = [f for kind, (r, f) in kinds.items() if r == side and (r or kind in NONSENSE)]
            rows = [rng.integers(0, len(f["overall"]), 3000 // len(chosen)) for f in chosen]
            drawn[name, side] = {
                s: np.concatenate([f[s][at] for f, at in zip(chosen, rows, strict=True)])
                for s in STATISTICS
            }
    pooled = {
        s: [np.concatenate([drawn[n, side][s] for n in answers]) for side in (True, False)]
        for s in STATISTICS
    }
    cosine = drawn["flickr8k", False]["cosine"]
    cut = float(np.quantile(cosine, np.mean(drawn["flickr8k", False]["overall"] < 0.5)))
    right, wrong = pooled["cosine"]
    best = max(((right >= c).mean() + (wrong < c).mean()) / 2 for c in np.unique(right))
    balanced = ((pooled["overall"][0] >= 0.5).mean() + (pooled["overall"][1] < 0.5).mean()) / 2
    rates = {
        name: {
            f"{label}, {rule}": round(float((drawn[name, side][s] >= border).mean()), 4)
            for label, side in (("right passed", True), ("nonsense passed", False))
            for rule, s, border in (("ours", "overall", 0.5), ("cosine", "cosine", cut))
        }
        for name in answers
    }
    return {
        "auroc": {s: auroc(*pooled[s]) for s in STATISTICS},
        "balanced accuracy of our default border": round(float(balanced), 4),
        "balanced accuracy of the best single cosine, chosen on these very queries": round(
            float(best), 4
        ),
        "cosine with our rate of false alarms on flickr8k": round(cut, 4),
        "passed": rates,
    }


def small_sample(stored: Embeddings, kinds: dict[str, tuple[bool, list[str]]]) -> dict:
    """Shares passed when 200 images stand for all, with and without regard to their number."""
    encoder = load("pocket-text")
    sample = stored[np.random.default_rng(0).permutation(len(stored))[:200]]
    calibration = calibrate_texts(sample, *background(encoder))
    assert calibration is not None
    out: dict = {}
    for kind in ("captions", *NONSENSE):
        vectors = encoder.encode_texts(kinds[kind][1])
        out[kind] = {
            name: round(
                float((answer(calibration, vectors, stored, size)["overall"] >= 0.5).mean()), 4
            )
            for name, size in (("with", len(stored)), ("without", len(sample)))
        }
    return out


def hits_told_apart(found: Answers, labels: NDArray) -> dict[str, float]:
    """Hits of the wanted class against other hits, over all class words at once."""
    wanted = np.repeat(list(written.CLOTHES), len(written.TEMPLATES))
    right = labels[found["hits"]] == wanted[:, None]
    return {
        name: auroc(found[key][right], found[key][~right])
        for name, key in (("cosine", "cosines"), ("relevance", "relevance"))
    }


def ask_pictures(stored: Embeddings, asked: dict[str, Embeddings]) -> dict:
    """Verdicts on pictures, and AUROC of what belongs to the collection against what does not."""
    sample = stored[np.random.default_rng(0).permutation(len(stored))]
    calibration = calibrate_images(sample)
    assert calibration is not None
    found = {kind: answer(calibration, queries, stored) for kind, queries in asked.items()}
    out: dict = {}
    for kind, answers in found.items():
        out[kind] = shares(answers)
        if kind.startswith("photos of"):
            unseen = found["unseen photos of its kind"]
            out[kind]["auroc"] = {s: auroc(unseen[s], answers[s]) for s in ("cosine", "overall")}
    return out


def ask_composed(stored: Embeddings, captions: list[str]) -> dict:
    """Verdicts on queries of two parts: one half of the photos asks the other."""
    encoder = load("pocket-text")
    here, unseen = stored[::2], stored[1::2]
    own, letters = (
        encoder.encode_texts(part)
        for part in (captions[1::2], written.random_letters(len(unseen), 4))
    )
    pictures, words = calibrate_images(here), calibrate_texts(here, *background(encoder))
    assert pictures is not None and words is not None
    asked = {
        "an unseen photo": (pictures, unseen),
        "an unseen photo and its caption": (pictures, unseen + own),
        "an unseen photo and random letters": (pictures, unseen + letters),
        "a caption": (words, own),
        "a caption minus half of another": (words, own - 0.5 * np.roll(own, 7, axis=0)),
        "random letters minus half of a caption": (words, letters - 0.5 * own),
    }
    return {
        kind: shares(answer(calibration, unit_rows(queries), here))
        for kind, (calibration, queries) in asked.items()
    }


def timed(work: Callable[[], object]) -> float:
    """Median milliseconds of five runs."""
    spans = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        spans.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(spans), 2)


def show(result: dict) -> None:
    table = Table("collection", "queries", "no good match", "cosine", "ours", title="words")
    for name, kinds in result["words"].items():
        for kind, facts in kinds.items():
            marks = facts.get("auroc", {"cosine": "", "overall": ""})
            cells = (facts["no good match"], marks["cosine"], marks["overall"])
            table.add_row(name, kind, *(str(cell) for cell in cells))
    Console().print(table)
    Console().print_json(json.dumps({k: v for k, v in result.items() if k != "words"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    photos = Photos(parser.parse_args().data)
    flickr, coco = photos.flickr(), photos.coco()
    (clothes, labels), (shelf, _) = photos.clothing(test=True), photos.clothing(test=False)
    text, visual = "pocket-text", "pocket-visual"
    stored = {
        "flickr8k": flickr[text],
        "flickr8k, every tenth": flickr[text][::10],
        "clothing": clothes[text],
        "coco128": coco[text],
    }
    asked = questions(photos)
    answers = ask_words(stored, asked)
    copies = photos.copies(200)
    rng = np.random.default_rng(0)
    large = np.concatenate([shelf[text]] * 2)[:2000] + rng.normal(0, 0.01, (2000, 256))
    sample = (large / np.linalg.norm(large, axis=1, keepdims=True)).astype(np.float32)
    result = {
        "words": by_collection(answers),
        "one rule for all collections": one_rule(answers),
        "passed on flickr8k with 200 of 1,000 photos as sample": small_sample(
            stored["flickr8k"], asked["flickr8k"]
        ),
        "hits of class words on clothing": hits_told_apart(
            answers["clothing"]["class words"][1], labels
        ),
        "pictures": {
            space: ask_pictures(
                shelf[space],
                {
                    "its own photos": shelf[space],
                    "its own photos, cropped": copies[space],
                    "unseen photos of its kind": clothes[space],
                    "photos of flickr8k": flickr[space],
                    "photos of coco128": coco[space],
                },
            )
            for space in (visual, text)
        },
        "composed": ask_composed(
            flickr[text], [own[0] for own in photos.captions["test"].values()]
        ),
        "milliseconds": {
            "background, encoded by pocket-text": timed(
                lambda: load(text).encode_texts([line for part in texts() for line in part])
            ),
            "calibrate for words, 2000 images": timed(
                lambda: calibrate_texts(sample, *background(load(text)))
            ),
            "calibrate for pictures, 2000 images": timed(lambda: calibrate_images(sample)),
            "judge 10 hits": round(float(np.median(answers["flickr8k"]["captions"][1]["ms"])), 3),
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
