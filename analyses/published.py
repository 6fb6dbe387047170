"""The numbers that Wang et al. 2024 and other systems print, to stand beside ours; of `published.yaml`, in its units.

They are another model's on another set: a difference from ours is no error of either. What the source does not print
as a number is missing here, never guessed; printed averages that do not follow from their printed parts are kept as
printed and named in the notes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mechinterp.errors import InputError

FILE = Path(__file__).with_suffix(".yaml")
METHODS = (
    "vanilla",
    "sft",
    "dpo",
    "self_reminder",
    "ext_sub",
    "ft_l",
    "mend",
    "dinm",
    "dinm_wo_suffix",
    "dinm_wo_constraint",
    "dinm_wo_location",
    "dinm_wo_tune",
)
LABELS = ("model", "method", "instance", "edited", "suffix", "padding", "kind", "set", "hop")
"""Columns of words; every other one is a number, missing where the paper prints none."""


def published(table: str) -> pd.DataFrame:
    """One table of the paper, a row per model and method (and instance, category, suffix or layer).

    Args:
        table: `methods`, `ablations`, `all_test`, `instances`, `categories`, `suffixes`, `blocks`, `padding`,
            `memory` or `mechanism`; of other systems of the group, other models on other data: `conflict_edit`,
            `round_edit`, `personality_edit`, `circuits`, `circuit_overlap`, `circuit_heads`, `circuit_edges`,
            `knowedit` or `zsre`.

    Returns:
        Rates in percent, fluency in bits, as the head of `published.yaml` says.

    Raises:
        InputError: for an unknown table, with the known ones.
    """
    entry = _entry(table)
    frame = pd.DataFrame(entry["rows"], columns=entry["columns"])
    for column in frame.columns.difference(list(LABELS)):
        frame[column] = pd.to_numeric(frame[column])
    return frame


def source(table: str) -> str:
    """Where the numbers of a table were seen: paper, number of the table, public address."""
    return str(_entry(table)["source"])


def notes(table: str) -> tuple[str, ...]:
    """What a reader of the table's published column must know, a sentence each."""
    return tuple(_entry(table).get("notes", ()))


def _entry(table: str) -> dict[str, Any]:
    tables = {**_content()["tables"], **_content()["other_systems"]}
    if table not in tables:
        raise InputError(f"there is no published table {table!r}; the known ones are {', '.join(tables)}")
    return dict(tables[table])


@cache
def _content() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))
