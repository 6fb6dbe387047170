"""What circuits show, a sentence for each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd


def circuits_in_words(circuits: pd.DataFrame, faithfulness: pd.DataFrame) -> list[str]:
    """A sentence for each checkpoint, the base first.

    Args:
        circuits: `circuits.csv`.
        faithfulness: `circuit_faithfulness.csv`.
    """
    found = []
    for row in circuits.to_dict("records"):
        own = faithfulness[faithfulness["method"] == row["method"]].sort_values("edges")
        found.append(f"{row['method']}: {_of_base(row, own) if row['method'] == 'base' else _of_tuned(row)}")
    return found


def _of_base(row: Mapping[Hashable, Any], own: pd.DataFrame) -> str:
    gap = f"the metric falls by {row['gap']:.3g} from clean to corrupted prompts ({row['n']} pairs)"
    parts = []
    for circuit in own.to_dict("records"):
        random = circuit["random"]
        beside = "" if math.isnan(random) else f" (random edges {_two(random)})"
        parts.append(f"{circuit['share']:.1%} of the edges recover {_two(circuit['recovered'])} of it{beside}")
    return "; ".join([gap, *parts])


def _two(value: float) -> str:
    """With two decimals, and no sign of a zero."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def _of_tuned(row: Mapping[Hashable, Any]) -> str:
    parts = [
        f"through the base’s circuit flows {row['strength']:.2f} of what does in the base",
        f"(what is written {row['written']:+.2f}, how it is read {row['read']:+.2f});",
        f"gap {row['gap']:.3g}, {row['gap_share']:.2f} of the base’s;",
        f"rank correlation of edges {row['spearman_edges']:.2f};",
        f"{row['new']} of {row['edges']} edges new",
    ]
    note = row["note"]
    return " ".join(parts) + (f"; {note}" if isinstance(note, str) and note else "")
