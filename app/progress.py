"""A progress bar on stderr for work that tells how much of it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.output import console


@contextmanager
def bar(task: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar with ETA.

    Args:
        task: what is done, in a word or two.
        shown: whether to draw anything; never where stderr is no terminal.

    Yields:
        What to call with how much is done, and of how much.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    drawn = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
    )
    row = drawn.add_task(task, total=None)

    def tell(done: int, total: int) -> None:
        drawn.update(row, completed=done, total=total)

    with drawn:
        yield tell
