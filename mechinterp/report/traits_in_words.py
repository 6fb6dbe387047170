"""What edits towards traits did, in a sentence for each trait."""

from __future__ import annotations

import math

import pandas as pd

from mechinterp.audit.tables.reading import interval_of
from mechinterp.data.counting import many


def traits_in_words(table: pd.DataFrame) -> list[str]:
    """A line for each trait that was edited towards: edit success, and what became of each trait.

    Args:
        table: `traits.csv`.
    """
    edited = table[table["edited"].notna() & (table["edited"] != "")]
    said = []
    for trait, rows in edited.groupby("edited", sort=False):
        (own,) = rows[rows["measured"] == trait].to_dict("records")
        others = rows[rows["measured"] != trait].to_dict("records")
        moved = ", ".join(f"{row['measured']} {row['shift']:+.2f}" for row in [own, *others])
        success = interval_of(own, "es").told(".2f")  # type: ignore[arg-type] # pandas' keys
        topics = many(own["n"], "topic")
        other = "no other topic" if math.isnan(own["dd"]) else f"on another topic KL {own['dd']:.2g}"
        said.append(
            f"edited towards {trait}: ES {success} over {topics}; nats a token of opinions that show {moved}; {other}"
        )
    return said
