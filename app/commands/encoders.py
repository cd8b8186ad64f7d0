"""`retrieval encoders`: which encoders there are, which to choose, and all about one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import options
from app.output import console, print_columns, print_json


class _ByName(TyperGroup):
    """Reads `retrieval encoders NAME` as `retrieval encoders show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_ByName, invoke_without_command=True, subcommand_metavar="[NAME]")


@app.callback()
def encoders(context: typer.Context, json: options.Json = False) -> None:
    """List the encoders and say which to choose; with a NAME, tell all about one.

    Example: `retrieval encoders siglip2-base`
    """
    if context.invoked_subcommand is not None:
        return
    from app.encoder_list import print_list
    from retrieval import settings
    from retrieval.encoders import specs

    if json:
        print_json({"encoders": [asdict(spec) for spec in specs().values()]})
    else:
        print_list(specs(), settings.load().encoders)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name of the list, also with :POOLING; a folder; module:Class."
        ),
    ],
    json: options.Json = False,
) -> None:
    """Tell all about one encoder, without downloading it.

    Example: `retrieval encoders show dinov2-base`
    """
    from app.encoder_facts import described, missing, print_facts

    spec = described(name)
    if json or (context.parent is not None and context.parent.params["json"]):
        print_json({"encoder": asdict(spec), "missing": missing(spec)})
    else:
        print_facts(spec)


@app.command()
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of the list, or a folder.")],
    to: Annotated[str, typer.Option(metavar="FOLDER", help="New folder to write.")],
    json: options.Json = False,
) -> None:
    """Write an encoder as ONNX graphs in a folder, which runs without torch.

    Every graph is compared with the network it came from before it is kept. The folder's path is
    an encoder's name: `--encoder FOLDER`.

    Example: `retrieval encoders export dinov2-small --to ./dinov2-small-onnx`
    """
    from pathlib import Path

    from retrieval.encoders.checkpoints import Checkpoint
    from retrieval.encoders.export import export as write
    from retrieval.encoders.loading import find
    from retrieval.encoders.names import parse
    from retrieval.errors import EncoderError

    found = find(parse(name))
    if not isinstance(found, Checkpoint):
        raise EncoderError(f"{name} is made of ONNX graphs already: copy its folder")
    report = write(found, Path(to).resolve())
    if json:
        parity = [asdict(each) for each in report.parity]
        print_json({"folder": str(report.folder), "parity": parity})
        return
    rows = [("graph", "max abs difference", "least cosine")]
    rows += [(p.tower, f"{p.max_abs_difference:.1e}", f"{p.min_cosine:.7f}") for p in report.parity]
    print_columns(rows, right={1, 2})
    console().print(f"{report.folder} runs without torch: --encoder {report.folder}")
