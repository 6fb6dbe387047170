"""A figure of a run with all that is said of it: whoever names, draws or shows a figure asks its plate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plate:
    """A figure of a run.

    Attributes:
        name: of its files and on the command line.
        title: its heading on the page and in the gallery.
        caption: what is drawn and how to read it, below the picture.
        alt: what is there to be seen, and where its numbers are, for those who cannot see it.
        tables: names of the tables that it is drawn from, in the order in which `draw` takes them.
        draw: from these tables to the figure; `InputError` where they do not have what it needs.
        optional: of some runs only: nobody misses it in the others.
        narrow: no wider than one column, on the page too.
    """

    name: str
    title: str
    caption: str
    alt: str
    tables: tuple[str, ...]
    draw: Callable[..., Figure]
    optional: bool = False
    narrow: bool = False
