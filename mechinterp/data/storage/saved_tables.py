"""The tables of a run folder, `tables/*.csv` and a benchmark's: which there are, and each of them when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.data.storage.tables import read_table
from mechinterp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


logger = logging.getLogger(__name__)


class SavedTables(Mapping[str, "pd.DataFrame"]):
    """Tables by name, in alphabetical order; each is read once, when it is first asked for.

    Args:
        run: the folder that has `tables/*.csv`, or `benchmark/benchmark.csv`; it may have none.
    """

    def __init__(self, run: Path) -> None:
        files = [*(run / "tables").glob("*.csv"), *(run / "benchmark").glob("benchmark.csv")]
        self._files = {path.stem: path for path in sorted(files, key=lambda path: path.stem)}
        self._read: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A table.

        Raises:
            KeyError: for a name that is not there.
            InputError: for a file that cannot be read as a table.
        """
        if name not in self._read:
            path = self._files[name]
            try:
                self._read[name] = read_table(path)
            except (ValueError, OSError) as error:
                raise InputError(f"{path}: cannot be read as a table ({_line(error)}); make it again") from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files  # without reading it

    def readable(self) -> dict[str, pd.DataFrame]:
        """All that can be read; a warning names every other."""
        tables = {}
        for name, path in self._files.items():
            try:
                tables[name] = self[name]
            except InputError as error:
                reason = _line(error.__cause__ or error)
                logger.warning("%s: left out, it cannot be read as a table (%s)", path, reason)
        return tables


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
