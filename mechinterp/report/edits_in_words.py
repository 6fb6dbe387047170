"""What edits do to each other, in a sentence for each editor and kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from mechinterp.audit.tables.reading import counted

_CONFLICT = {
    "cs": "the later answer is the more probable one in {}",
    "cs_implied": "what follows from the first in {}",
    "cm": "of the first answer {} is lost",
    "tfd": "of what is tied to them {}",
}
_ROUND = {
    "jsd_left": "in the median {} of what the edit did to the answers is left",
    "weights_left": "{} of its change of weights",
    "write_left": "{} of its write",
    "ir": "other true answers that lost: {}",
    "covered_up": "covered up, not undone: {}",
}


def edits_in_words(summary: pd.DataFrame) -> list[str]:
    """A line for each editor and kind: means, or medians of what is left, with their intervals and of how many records.

    Args:
        summary: `edits_summary.csv`.
    """
    said = []
    for (method, kind), rows in summary.groupby(["method", "kind"], sort=False):
        by_name = {str(row["quantity"]): row for row in rows.to_dict("records")}
        words = _CONFLICT if "cs" in by_name else _ROUND
        parts = [words[name].format(counted(by_name[name])) for name in words if _defined(by_name, name)]
        said.append(f"{method}, {kind}: {'; '.join(parts) or 'nothing is defined'}")
    return said


def in_turn_in_words(table: pd.DataFrame) -> list[str]:
    """A line for the table `edits_in_turn`: what is left of the edits after the last one."""
    last = table[table["after"] == table["after"].max()]
    earlier = last[last["edit"] < last["after"]]
    if earlier.empty:
        return ["one edit: nothing comes after it"]
    lost = ", ".join(f"{row['cm']:z.0%}" for row in earlier.to_dict("records"))
    return [f"after {int(last['after'].iloc[0])} edits the earlier ones' answers, first to last, have lost {lost}"]


def _defined(rows: Mapping[str, Mapping[Hashable, Any]], name: str) -> bool:
    return name in rows and bool(pd.notna(rows[name]["value"]))
