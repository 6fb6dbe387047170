"""A figure that shows itself in a notebook, and is saved as a run's figures are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mechinterp.report.plates import figure_bytes, save_figure

PIXELS = 117
"""On a page, for an inch of the figure, so that letters are as large in all; the picture itself has 200."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of a run.

    Attributes:
        name: its own, one of `RunFolder.figures`.
        figure: matplotlib's.
    """

    name: str
    figure: Figure

    def save(self, folder: str | Path) -> list[Path]:
        """Write `NAME.png` and `NAME.pdf`, the same bytes as a run's own.

        Raises:
            InputError: if the folder cannot be written.
        """
        return save_figure(self.figure, Path(folder), self.name)

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        return figure_bytes(self.figure), {"width": round(PIXELS * self.figure.get_figwidth())}
