"""The command line: `mechinterp COMMAND`. Heavy imports wait until a command needs them, so that help is
instant."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
from functools import cache
from typing import Any

from mechinterp.cli.arguments import as_options, learn_options
from mechinterp.cli.speaking import say, write_line
from mechinterp.cli.stopping import STOPPING
from mechinterp.data.storage.full_disk import unwritable
from mechinterp.errors import InputError
from mechinterp.models.launcher import forget_leftovers, launched, rank

_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # what they cannot spell is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, handlers=[_Warnings()])
    code: Any = 2
    STOPPING.goes_on = False
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
            signal.signal(signal.SIGINT, _Interrupts())
        forget_leftovers()
        if not launched():  # a launcher ends its processes by this signal, and tells why itself
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = _run()
    except InputError as error:
        _tell(f"mechinterp: {as_options(' '.join(str(error).split()))}")
    except OSError as error:  # of a file that cannot be read or written: the system says which and why
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        why = error.strerror if isinstance(error.strerror, str) else " ".join(str(error).split())
        _tell(f"mechinterp: {where}{why}")
    except Exception as error:
        if (reason := unwritable(error)) is None:
            raise
        _tell(f"mechinterp: {reason}")
    except KeyboardInterrupt:
        say(STOPPING.told, err=True)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends what is left to do at once
        exec("")  # Python would end by the signal, without an exit code, had the interrupt met it within another exec
        code = _INTERRUPTED
    sys.exit(code)


def _run() -> Any:
    """The command that was called for; its exit code.

    Raises:
        InputError: for a user's mistake, in the options too.
        KeyboardInterrupt: if it was stopped.
    """
    import typer

    usage_error: Any = typer.BadParameter.__mro__[2]  # click's class of all such errors, for which typer has no name
    command = _command()
    learn_options(command, sys.argv[1:])
    try:
        code = command(standalone_mode=False)
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # of a group without a command: its help, as it stands
            say(error.format_message(), err=True)
            return 2
        raise InputError(error.format_message()) from error
    if code == _INTERRUPTED:  # typer's word for it
        raise KeyboardInterrupt
    return code


@cache
def _command() -> Any:
    """The group of all commands, of click's class, which takes longer to build than many a command."""
    from typer.main import get_command

    from mechinterp.cli.app import app
    from mechinterp.cli.listing import in_window

    return in_window(get_command(app))


def _tell(line: str) -> None:
    """Print an error, of one process's share too."""
    try:
        number = rank()
    except InputError:  # the error itself
        number = 0
    if number > 0:  # of this process's share alone, unless the main one ends all of them first
        time.sleep(3)
        line = f"[process {number}] {line}"
    write_line(line, err=True)


class _Interrupts:
    """Hears a Ctrl-C, and those that follow within a second as the same one: it is often typed twice, and the second
    would meet what the first has begun to tidy up."""

    def __init__(self) -> None:
        self.heard = -1.0

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if now - self.heard >= 1:
            self.heard = now
            raise KeyboardInterrupt


class _Warnings(logging.Handler):
    """Shows a message the first time, only in the process that speaks for all, and above a bar that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message, unless that was done before."""
        message = record.getMessage()
        if message not in self.seen:
            self.seen.add(message)
            say(as_options(message), err=True)
