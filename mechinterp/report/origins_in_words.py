"""Which weights carry a change, in a sentence for each checkpoint and read-out."""

from __future__ import annotations

import math

import pandas as pd

from mechinterp.measures.intervals import with_ends
from mechinterp.report.plotting.origins import READOUTS, best_way, label


def origins_in_words(origins: pd.DataFrame) -> list[str]:
    """A line for each checkpoint and read-out: the change, and the groups that carry it, the largest first.

    Args:
        origins: `origins.csv`.
    """
    said = []
    for method, readout in origins[["method", "readout"]].drop_duplicates().itertuples(index=False):
        rows = best_way(origins, method, readout)
        change, low, high = (float(rows[name].iloc[0]) for name in with_ends("change"))
        line = f"{method}: {READOUTS.get(readout, readout)} {change:+.3g} ({low:+.3g} to {high:+.3g})"
        shares = rows["share"].astype(float)
        if shares.isna().any():
            said.append(f"{line}; shares {rows['note'].iloc[0]}")
            continue
        order = shares.abs().sort_values(ascending=False, kind="stable").index
        parts = [
            f"{label(str(group))} {100 * float(row['share']):.0f}%{_interval(row) if group == 'mlp.out' else ''}"
            for group, row in rows.reindex(order).iterrows()
            if row["phi"] != 0 or group == "mlp.out"
        ]
        more = len(parts) - 8
        said.append(f"{line}: {', '.join(parts[:8])}{f' and {more} more' if more > 0 else ''} ({rows['way'].iloc[0]})")
    return said


def _interval(row: pd.Series) -> str:
    low, high = (100 * float(row[name]) for name in with_ends("share")[1:])
    return "" if math.isnan(low) else f" ({low:.0f} to {high:.0f}%)"
