"""Where a student is made: beside its folder, which appears whole when the student is finished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from indexers.distill.report import DistillReport
from retrieval.encoders.files import put
from retrieval.encoders.made import FACTS
from retrieval.errors import EncoderError

DISTILLED = "distilled"
"""Entry of a student's ``encoder.json``: its plan and its report."""

Plan = dict[str, Any]
"""What decides how a student turns out: teacher, data, epochs, seed."""


class Workplace:
    """The folder of a student, and the one beside it that holds what only training needs.

    Attributes:
        folder: the student's own folder.
        training: checkpoints, pixels and the teacher's answers, until the student is finished.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Begin, or go on with the same plan.

        Raises:
            EncoderError: if there is something else, or a student of another plan.
            OSError: if it cannot be written.
        """
        self.folder, self.training = folder, folder.with_name(f"{folder.name}.training")
        self.plan = plan
        begun = self.training / "plan.json"
        if (done := self._facts()) is not None:
            self._check(done["plan"], f"{folder} holds another student")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EncoderError(f"{folder} is not an empty folder: choose another one")
        elif begun.is_file():
            other = f"{self.training} belongs to another student in the making"
            self._check(json.loads(begun.read_bytes()), other)
        else:
            put(begun, json.dumps(plan, indent=1).encode())

    def report(self) -> DistillReport | None:
        """The report of the student, if it is finished."""
        done = self._facts()
        if done is None:
            return None
        return DistillReport(**{**done["report"], "out": str(self.folder)})

    def clear(self) -> None:
        """Remove what only training needed."""
        shutil.rmtree(self.training, ignore_errors=True)

    def _facts(self) -> dict[str, Any] | None:
        """Plan and report of the student that is here."""
        try:
            facts = json.loads((self.folder / FACTS).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        found: dict[str, Any] | None = facts.get(DISTILLED)
        return found

    def _check(self, theirs: Plan, complaint: str) -> None:
        """Compare this plan with another."""
        if other := [name for name, value in self.plan.items() if theirs.get(name) != value]:
            raise EncoderError(
                f"{complaint}, of other {' and '.join(other)}: choose another folder, or delete "
                "that one"
            )
