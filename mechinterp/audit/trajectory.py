"""A training run's checkpoints in the order of their steps, and what the comparison says of them over steps."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.data.storage.places import check_name
from mechinterp.errors import InputError
from mechinterp.measures.intervals import with_ends

_STEP = re.compile(r"(\d+)$")
_TERMS = ("change", "erasure", "bypass", "erasure_share")


@dataclass(frozen=True, order=True)
class Step:
    """A place in a training run."""

    trajectory: str
    step: int


def find_steps(pattern: str, name: str | None = None) -> list[tuple[Step, str]]:
    """The checkpoints of a training run.

    Args:
        pattern: of their folders, as for a shell: `run/checkpoint-*`. The number at the end of a folder's name is its
            step.
        name: of the run; by default that of the folder they are in.

    Returns:
        Steps with their folders, the first step first.

    Raises:
        InputError: if nothing matches, or a name has no number at its end or one that another has too.
    """
    if name is not None:
        check_name(name, "trajectory")
    found: list[tuple[Step, str]] = []
    for path in sorted(glob.glob(str(Path(pattern).expanduser()))):
        if not Path(path).is_dir():
            continue
        number = _STEP.search(Path(path).name)
        if number is None:
            raise InputError(f"{path}: its name has no step at its end, as checkpoint-100 has")
        found.append((Step(name or Path(path).resolve().parent.name, int(number[1])), path))
    if not found:
        raise InputError(f"`trajectory={pattern}`: nothing matches; quote it, so that the shell leaves it alone")
    found.sort()
    for (one, path), (other, another) in pairwise(found):
        if one == other:
            raise InputError(f"{path} and {another} are both step {one.step} of {one.trajectory}")
    return found


def trajectory_table(steps: Mapping[str, Step], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Toxicity, shift, erasure and bypass over steps; step 0 is the base.

    Args:
        steps: method -> its step.
        tables: of the comparison: `mechanism` and `local_verdict`.

    Returns:
        A row per step, quantity, direction and position: `trajectory,step,method,quantity,direction,position,value,low,
        high`. `toxicity` and `activation_shift_rate` are of the toxic layer, along the probe's direction and at the
        last prompt token; the others are sums over blocks, in units of the residual stream.
    """
    rows = []
    for method, step in steps.items():
        key = {"trajectory": step.trajectory, "step": step.step, "method": method}
        for row in tables["mechanism"].query("method == @method").to_dict("records"):
            place = {"direction": "probe", "position": "prompt_last"}
            rows.append({**key, "quantity": "toxicity", **place, "value": row["toxicity"]})
            shift = _with_interval(row, "activation_shift_rate")
            rows.append({**key, "quantity": "activation_shift_rate", **place, **shift})
            start = {**key, "step": 0, "method": "base"}
            rows.append({**start, "quantity": "toxicity", **place, "value": row["toxicity_base"]})
            rows.append({**start, "quantity": "activation_shift_rate", **place, "value": 0.0})
        for row in tables["local_verdict"].query("method == @method").to_dict("records"):
            place = {"direction": row["direction"], "position": row["position"]}
            for term in _TERMS:
                rows.append({**key, "quantity": term, **place, **_with_interval(row, term)})
                if term != "erasure_share":  # of no change there is no share
                    rows.append({**key, "step": 0, "method": "base", "quantity": term, **place, "value": 0.0})
    columns = ["trajectory", "step", "method", "quantity", "direction", "position", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=columns).drop_duplicates(columns[:6])
    order = table["quantity"].map({name: i for i, name in enumerate(("toxicity", "activation_shift_rate", *_TERMS))})
    return table.assign(order=order).sort_values(
        ["trajectory", "order", "direction", "position", "step"], kind="stable", ignore_index=True
    )[columns]


def _with_interval(row: Mapping[Any, Any], name: str) -> dict[str, object]:
    return dict(zip(("value", "low", "high"), (row[column] for column in with_ends(name)), strict=True))


def last_steps(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables with the last step of every trajectory only: the rest is for the trajectory's own figure."""
    names = ["trajectory", "step", "method"]
    if "trajectory" not in tables or not set(names) <= set(tables["trajectory"]):
        return dict(tables)
    steps = tables["trajectory"][names].drop_duplicates().sort_values("step")
    last = set(steps.groupby("trajectory")["method"].last())
    others = set(steps.loc[steps["step"] > 0, "method"]) - last  # step 0 is the base, which has rows of its own
    return {
        name: table[~table["method"].isin(others)].reset_index(drop=True)
        if name != "trajectory" and "method" in table
        else table
        for name, table in tables.items()
    }
