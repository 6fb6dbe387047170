"""A run: a config, a seed and a folder. It reads nothing by itself; what stands in the folder has readers of its own.

So a stage depends on the code of those readers alone that it imports (`provenance.code_of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.data.storage.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.runs.config import StudyConfig


@dataclass(frozen=True)
class Run:
    """A config, a seed and the folder that holds everything made from them."""

    config: StudyConfig
    seed: int
    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run."""
        return read_table(self.place_of(name))

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Leave a table in the run."""
        return write_table(self.place_of(name), table)

    def place_of(self, name: str) -> Path:
        """Where a table of the run is."""
        return self.folder / "tables" / f"{name}.csv"
