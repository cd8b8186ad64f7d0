"""The command line: `retrieval COMMAND`."""

from __future__ import annotations

import sys

import typer

from app.commands import delete, demo, doctor, encoders, index, search, status
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
app.command("delete")(delete.delete)
app.command("status")(status.status)
app.command("encoders")(encoders.encoders)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line; what this project raises on purpose is told in one line."""
    from retrieval.errors import RetrievalError

    try:
        app()
    except RetrievalError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
