"""Stopping a run at a place where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Says when to stop: because a caller's event is set, or because a signal came.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self, event: threading.Event | None = None) -> None:
        """Watch ``event``, where there is one."""
        self._event = event or threading.Event()
        self.signal: int | None = None

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set() or self.signal is not None


@contextmanager
def stoppable(event: threading.Event | None) -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a wish to stop; a second one acts as ever.

    Signals reach only the main thread; elsewhere only ``event`` stops.
    """
    stop = Stop(event)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def wish(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup and `command &` mean it
            signal.signal(number, wish)
    try:
        yield stop
    finally:
        restore()
