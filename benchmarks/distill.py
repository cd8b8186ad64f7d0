"""What a distilled student keeps of its teacher, and how much cheaper it is.

    python -m benchmarks.distill [--data ../shared/data] [--work distilled] [--teacher NAME]…

Distils both pocket encoders on the photos of ``clothing`` and ``flickr8k``; their test parts are
held out and are what every figure is measured on. It takes about ten minutes a teacher on two
quiet cores; interrupted, it goes on when called again, and once both students are there it only
measures speed anew. Rounds of student and teacher alternate on one thread, medians count.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import Progress as Bar

from indexers.distill import Progress, distill
from indexers.distill.agreement import compare_speed
from retrieval.encoders import load

RESULT = Path(__file__).parent / "results" / "distill.json"
TEACHERS = ("pocket-visual", "pocket-text")
TIMED, ROUNDS = 16, 31


def rows(data: Path) -> Iterator[tuple[Path, str, str]]:
    """Path, label (if any) and split of every photo of both sets."""
    with (data / "clothing" / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield data / "clothing" / row["file"], row["label"], row["split"]
    with (data / "flickr8k" / "captions.csv").open(newline="", encoding="utf-8") as file:
        for name, split in {row["image"]: row["split"] for row in csv.DictReader(file)}.items():
            yield data / "flickr8k" / "images" / name, "", split


def student_of(teacher: str, data: Path, work: Path, epochs: int) -> dict[str, Any]:
    """Distil one teacher, or take the student that is there, and measure its speed again."""
    labels = work / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split"])
        writer.writerows(rows(data))
    with Bar(console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def watch(now: Progress) -> None:
            if now.stage not in tasks:
                tasks[now.stage] = bar.add_task(f"{teacher}: {now.stage}", total=now.total)
            bar.update(tasks[now.stage], completed=now.done)

        report = distill(
            teacher,
            [data / "clothing", data / "flickr8k" / "images"],
            work / teacher,
            labels=f"{labels}:label",
            captions=data / "flickr8k" / "captions.csv" if teacher == "pocket-text" else None,
            epochs=epochs,
            watch=watch,
        )
    test = [path for path, label, split in rows(data) if label and split == "test"][:TIMED]
    pictures = [Image.open(path).convert("RGB") for path in test]
    student = load(report.out)
    together = compare_speed(student, load(teacher), pictures, ROUNDS)
    alone = compare_speed(student, load(teacher), pictures[:1], ROUNDS * TIMED)
    measured = {"out": teacher, "speed": together, "speed_one_by_one": alone}
    return {"epochs": epochs, **asdict(report), **measured}


def rounded(value: Any) -> Any:
    """The same with four digits behind the point."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Distil, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("distilled"))
    parser.add_argument("--teacher", choices=TEACHERS, action="append")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.data.resolve()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["command"] = "python -m benchmarks.distill --data ../shared/data"
    for teacher in options.teacher or TEACHERS:
        result[teacher] = rounded(student_of(teacher, data, options.work, options.epochs))
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print_json(json.dumps(result))


if __name__ == "__main__":
    main()
