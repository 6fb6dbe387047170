"""How long work is shown: progress bars with rates on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mechinterp.cli.arguments import as_options
from mechinterp.models import launcher
from mechinterp.models.quiet import quieted


class Terminal:
    """Progress bars with rates on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        quiet = not launcher.is_main()  # one process speaks for all
        self.console = Console(stderr=True, quiet=quiet, force_terminal=_moves_cursor(sys.stderr))
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.bars.stop()
        finally:  # interrupted again meanwhile
            self.console.show_cursor()

    def note(self, text: str) -> None:
        """One line."""
        self.console.print(as_options(text), highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str) -> Callable[..., None]:
        """A callback for (done, total, ...)."""
        if not self.console.is_terminal:
            return _plain_lines(self.note, what)
        task = self.bars.add_task(what, total=None, visible=False)

        def advance(done: int, total: int, *_: object) -> None:
            self.bars.update(task, completed=done, total=total, visible=done < total)

        return advance


class _Rate(ProgressColumn):
    """Steps a second, nothing until there have been enough of them to tell."""

    def render(self, task: Task) -> Text:
        """Of one task."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


def _moves_cursor(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal on which a bar can be drawn again; whatever FORCE_COLOR says of colours."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _plain_lines(note: Callable[[str], None], what: str) -> Callable[..., None]:
    started = last = time.monotonic()

    def advance(done: int, total: int, *_: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10 or (done == total and now - started >= 10):
            note(f"{what}: {done} of {total}, {done / (now - started):.1f}/s")
            last = now

    return advance


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Show what is done, and nothing of what the libraries say of themselves."""
    with quieted():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # matplotlib's, told as if of the caller
        with Terminal() as shown:
            yield shown


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output: the first column to the left, the others, numbers, to the right."""
    # Text: names and paths may have brackets, which are no markup
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False, force_terminal=_moves_cursor(sys.stdout)).print(table)
