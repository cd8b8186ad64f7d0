"""One apply or undo in a process of its own, which kills itself with SIGKILL at a given line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import retrieval
from indexers import quarantine
from indexers.quarantine import apply as applying

HOUSE = os.path.dirname(quarantine.__file__)


def main(action: str, plan: str, collection: str, last: int) -> None:
    sys.modules[applying.__module__]._ROWS = 3  # several commits for few files
    opened = retrieval.open(collection)
    lines = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(HOUSE) else None

    sys.settrace(call)
    getattr(quarantine, action)(plan, opened)
    sys.settrace(None)
    print(lines)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
