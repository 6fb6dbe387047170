"""How long work is shown: progress bars with rates on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Terminal:
    """Progress bars with rates on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # one process speaks for all
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.speed:.1f}/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str) -> Callable[..., None]:
        """A callback for (done, total, ...)."""
        if not self.console.is_terminal:
            return _plain_lines(self.note, what)
        task = self.bars.add_task(what, total=None, visible=False)

        def advance(done: int, total: int, *_: object) -> None:
            self.bars.update(task, completed=done, total=total, visible=done < total)

        return advance


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
    quiet_libraries()
    with Terminal() as shown:
        yield shown


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output: the first column to the left, the others, numbers, to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)


def quiet_libraries() -> None:
    """Keep the libraries' own bars, advice and reports off the terminal, or out of a notebook."""
    warnings.filterwarnings("ignore", message="IProgress not found")  # a notebook's bars, which the imports look for
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_MODE", "disabled")
    from datasets import disable_progress_bars as disable_dataset_bars
    from huggingface_hub.utils.tqdm import disable_progress_bars as disable_hub_bars
    from transformers.utils import logging as transformers_logging

    disable_dataset_bars()
    disable_hub_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
