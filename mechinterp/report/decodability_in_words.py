"""What can be read off the states of checkpoints, in a sentence for each."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.tables.reading import interval_of


def decodability_in_words(table: pd.DataFrame, wording: Wording = UNSAFELY) -> list[str]:
    """A line for each checkpoint, the base first: what is read after the last block, not after the best one.

    Args:
        table: `decodability.csv`.
        wording: of the behaviour that it is of.
    """
    last = table[table["block"] == table["block"].max()]
    told = "unsafe prompts are" if wording == UNSAFELY else f"prompts answered {wording.so} are"
    return [
        f"{row['method']}, after the last block: {_read(row, told)}; {wording.worded(_ranked(row))}"
        for row in last.to_dict("records")
    ]


def _read(row: Mapping[Hashable, Any], told: str) -> str:
    auroc = interval_of(row, "auroc")  # type: ignore[arg-type] # pandas' keys
    if math.isnan(auroc.value):
        return f"no AUROC, {row['reason']}"
    above = interval_of(row, "above_words")  # type: ignore[arg-type]
    beside = f"{above.told('+.2f')} beyond the prompts' words"
    return f"{told} told at AUROC {auroc.told('.2f')}, {beside}, shuffled labels at {row['shuffled']:.2f}"


def _ranked(row: Mapping[Hashable, Any]) -> str:
    rank = interval_of(row, "rank_block")  # type: ignore[arg-type]
    if math.isnan(rank.value):
        return "no unsafe answer to rank"
    return f"the unsafe answer's first token has rank {rank.told('.0f')}"
