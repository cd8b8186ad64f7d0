"""`retrieval warm`: answer searches without starting anew each time."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Annotated

import typer

from app.output import note


def warm(
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Open it now; others when they are asked for."),
    ] = None,
    idle: Annotated[
        float, typer.Option(min=0.01, metavar="MINUTES", help="End when nobody asked for so long.")
    ] = 30,
) -> None:
    """Keep encoders and collections in memory, so that `retrieval search` answers at once.

    Runs until Ctrl-C or `kill`, or until nobody asked for a while. `retrieval search` finds it by
    itself and gives the same answers without it, only later. Only you can open its socket.

    Example: `retrieval warm -c photos.lance &`
    """
    from app.warm_server import WarmServer

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), WarmServer(collection or ()) as server:
        note(f"warm until {idle:g} minutes pass without a search, or: kill {os.getpid()}")
        server.serve_until_idle(60 * idle)
