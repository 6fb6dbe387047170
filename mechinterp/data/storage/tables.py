"""Tables as tidy CSV files: written whole or not at all, and read back with names as the text they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.data.storage.files import replacing

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("method", "checkpoint", "direction", "judge", "token", "tokens", "tokens_opposite", "name", "tensor")
"""Columns of tables whose text is not ours to choose: checkpoints may be called 007, nan or true, and tokens are."""


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write a tidy CSV, whole or not at all."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV that `write_table` wrote; names stay the text they are, whatever number or truth they look like.

    Raises:
        OSError, ValueError: if it cannot be read, or is no table.
    """
    import pandas as pd

    columns = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    names = [column for column in columns if column in NAMES]
    return pd.read_csv(
        path,
        encoding="utf-8-sig",
        keep_default_na=False,
        na_values={column: [""] if column in names else ["", "nan"] for column in columns},
        dtype=dict.fromkeys(names, str),
    )
