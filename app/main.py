"""The command line: `retrieval COMMAND`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from app.commands import (
    anomaly,
    check,
    classify,
    dedup,
    delete,
    demo,
    derive,
    distill,
    doctor,
    encoders,
    evaluate,
    explain,
    export,
    index,
    label_quality,
    leaks,
    map,
    search,
    shape,
    status,
    subset,
    warm,
)
from app.output import complain

app = typer.Typer(
    name="retrieval",
    help="Search your own images by words, by example and by id.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("index")(index.index)
app.command("search")(search.search)
app.command("explain")(explain.explain)
app.command("classify")(classify.classify)
app.command("dedup")(dedup.dedup)
app.command("leaks")(leaks.leaks)
app.command("check")(check.check)
app.command("mislabels")(label_quality.mislabels)
app.command("anomaly")(anomaly.anomaly)
app.command("shape")(shape.shape)
app.command("subset")(subset.subset)
app.command("map")(map.draw_map)
app.command("delete")(delete.delete)
app.command("status")(status.status)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(encoders.app, name="encoders")
app.command("distill")(distill.distill)
app.command("derive")(derive.derive)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("warm")(warm.warm)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from retrieval import __version__

        typer.echo(f"retrieval {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of this project or of the system is told in one line."""
    from retrieval.errors import RetrievalError

    os.environ.setdefault("LANCE_LOG", "error")  # what it warns of, it does again by itself
    try:
        app()
    except BrokenPipeError:
        # Nobody reads any more; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (RetrievalError, OSError) as error:
        complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
