"""Lines on standard output and standard error."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress

from mechinterp.models.launcher import is_main


def say(text: object, *, err: bool = False) -> None:
    """Print a line; under a launcher only the main process does."""
    if is_main():
        write_line(text, err=err)


def write_line(text: object, *, err: bool = False) -> None:
    """Print a line, in this process; to nobody where the stream is closed, or nobody reads the errors any more."""
    if (stream := sys.stderr if err else sys.stdout) is not None:
        with suppress(BrokenPipeError) if err else nullcontext():
            stream.write(f"{text}\n")
            stream.flush()
