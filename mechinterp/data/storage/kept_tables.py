"""Tables with labels in a folder, whole or not there: how results that are tables are kept and opened again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.data.storage.files import replacing, write_json
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError

_LABELS = "labels.json"


def keep_tables(folder: str | Path, kind: str, tables: Mapping[str, pd.DataFrame], labels: Mapping[str, Any]) -> Path:
    """Write `NAME.csv` of each table, and `labels.json`.

    Args:
        folder: made anew; what this tool wrote there before makes way.
        kind: what they are together, to be asked for when they are opened.
        tables: by name.
        labels: what else there is to keep, JSON-serialisable.

    Raises:
        InputError: if the folder cannot be written, or holds what this tool did not write.
    """
    with replacing(Path(folder)) as partial:
        partial.mkdir()
        for name, table in tables.items():
            write_table(partial / f"{name}.csv", table)
        write_json(partial / _LABELS, {"kind": kind, **labels})
    return Path(folder)


def open_tables(folder: str | Path, kind: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Read back what `keep_tables` wrote: the tables, and the labels.

    Raises:
        InputError: if it is not there, damaged, or of another kind.
    """
    folder = Path(folder)
    try:
        labels = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
        if labels.pop("kind") != kind:
            raise ValueError("it is of another kind")
        return {path.stem: read_table(path) for path in sorted(folder.glob("*.csv"))}, labels
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder}: not the folder of a saved {kind} ({error})") from error
