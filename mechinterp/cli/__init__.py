"""The command line: `mechinterp COMMAND`. Heavy imports wait until a command needs them, so that help is instant."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import typer

from mechinterp.cli import (
    benchmarking,
    comparing,
    directions,
    editing,
    evaluating,
    locating,
    measuring,
    relapsing,
    studies,
    training,
    vectors,
)
from mechinterp.cli.common import rank, say
from mechinterp.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Did a detoxified language model have its toxicity erased, or does it only walk around it?",
)
app.add_typer(studies.commands)
app.add_typer(training.commands, name="train")
for part in (locating, editing, measuring, directions, vectors, comparing, relapsing, evaluating, benchmarking):
    app.add_typer(part.commands)

# click's class of every error of usage; typer carries click inside and gives it no public name
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    handler = logging.StreamHandler()
    handler.addFilter(_Once())
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[handler])
    try:
        sys.exit(app(standalone_mode=False))
    except InputError as error:
        line = f"mechinterp: {' '.join(str(error).split())}"
        say(line, err=True)
        if rank() > 0:  # of this process's share alone, unless the main one ends all of them first
            time.sleep(3)
            typer.echo(f"[process {rank()}] {line}", err=True)
        sys.exit(2)
    except _USAGE_ERROR as error:  # an option that is unknown, missing or out of range
        say(f"mechinterp: {' '.join(error.format_message().split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        say("mechinterp: stopped; call again to go on where it was", err=True)
        sys.exit(130)


class _Once(logging.Filter):
    """Lets a message pass the first time, and only in the process that speaks for all."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a message."""
        new = record.getMessage() not in self.seen
        self.seen.add(record.getMessage())
        return new and rank() == 0
