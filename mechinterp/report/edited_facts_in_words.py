"""What editing facts block by block shows, a line for each method and block."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.tables.reading import counted

NAMES = {
    "success": "new answer",
    "rephrase": "in other words",
    "portability": "portability",
    "locality": "locality",
}


def edited_facts_in_words(edited: pd.DataFrame) -> list[str]:
    """Shares with their intervals, in brackets how many facts have them; where there are circuits, who writes it.

    Args:
        edited: `edited_facts.csv`.
    """
    whole = edited[edited["kind"].isna() | (edited["kind"] == "")]
    said = []
    for place, rows in whole.groupby(["method", "edited"], sort=False, dropna=False):
        by_name = {str(row["quantity"]): row for row in rows.to_dict("records")}
        parts = [f"{name} {counted(by_name[key])}" for key, name in NAMES.items() if key in by_name]
        if "direct" in by_name and by_name["direct"]["value"] == by_name["direct"]["value"]:
            direct, heads = (by_name[key]["value"] for key in ("direct", "heads"))
            parts.append(f"written to the logits by the edited MLP {direct:.0%}, by heads after it {heads:.0%}")
        if "carried" in by_name:
            parts.append(f"the subject’s last token carries {by_name['carried']['value']:.0%} of the answer")
        blocks = rows["edited"].dropna().tolist()
        at = f" at block {blocks[0]:.0f}" if blocks else ""
        said.append(f"{place[0]}{at}: {', '.join(parts)}")
    return said
