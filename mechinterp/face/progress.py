"""How the face's functions show what they do: a bar for each piece of work, in a notebook or on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mechinterp.models.launcher import is_main
from mechinterp.models.progress import Reporter, Silent
from mechinterp.models.quiet import quieted


@contextmanager
def watched(progress: bool | None = None) -> Iterator[Reporter]:
    """What long work reports to, with the libraries quiet meanwhile.

    Args:
        progress: whether bars are drawn; None: where somebody watches, that is in a notebook or on a terminal. The
            variable TQDM_DISABLE turns them off everywhere.
    """
    with quieted():
        if not is_main() or os.environ.get("TQDM_DISABLE") or not (_is_watched() if progress is None else progress):
            yield Silent()
            return
        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()


class Bars:
    """A bar for each piece of work, gone once it is done."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm  # which finds out whether this is a notebook

        self._tqdm, self._open = tqdm, list[Any]()

    def note(self, text: str) -> None:
        """One line, above the bars."""
        self._tqdm.write(text, file=sys.stderr)

    def progress(self, what: str) -> Callable[..., None]:
        """A callback for (done, total, ...)."""
        bar: Any = None

        def advance(done: int, total: int, *_: object) -> None:
            nonlocal bar
            if bar is None:
                bar = self._tqdm(desc=what, total=total, leave=False)
                self._open.append(bar)
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        return advance

    def close(self) -> None:
        """Take away what is left."""
        for bar in self._open:
            bar.close()


def _is_watched() -> bool:
    """Whether this runs in a notebook's kernel or on a terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") or (sys.stderr is not None and sys.stderr.isatty())
