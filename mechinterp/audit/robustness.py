"""Do the measures still tell the truth of a checkpoint that was rounded, or taught the behaviour?

A model in which the behaviour is gone should, whatever is done to it, look like the reference that never learnt and to
which the same was done:

    alikeness = 1 - |a - b| / (|a| + |b|)    of the measure's values at the checkpoint (a) and at the reference (b)

1 where they are equal, 0 where they have different signs or one is 0. A measure's robustness is the harmonic mean of
its mean alikeness after rounding and after relearning. Beside it how well it still tells gone from hidden: relearning
brings back what is hidden sooner than it teaches what was never known, and rounding should change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from mechinterp.audit.certificate import MEASURES, with_truth
from mechinterp.measures.separation import Numbers, auc

PERTURBATIONS = ("nf4", "relearned")
"""What is done to a checkpoint before it is measured: `runs.calibration.perturbing`."""


def alikeness(a: float, b: float) -> float:
    """1 - |a - b| / (|a| + |b|), from 0 to 1; NaN where a value is undefined, 1 where both are 0."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    size = abs(a) + abs(b)
    return 1 - abs(a - b) / size if size else 1.0


def robustness(table: pd.DataFrame, certified: pd.DataFrame) -> pd.DataFrame:
    """Every measure after every perturbation.

    Args:
        table: a row per base (blocks, seed), checkpoint and perturbation; among them the reference, `never`.
        certified: the certificate of the same bases, which says what is true of each checkpoint: what was meant to
            hide the behaviour and did not is left out.

    Returns:
        blocks, measure (label); of the checkpoints in which the behaviour is gone the mean alikeness with the
        reference after each perturbation (`alike_nf4`, `alike_relearned`) and `robustness`, their harmonic mean;
        `auc_nf4` and `auc_relearned`, gone against hidden after it, with `_low` and `_high`; n_gone, n_hidden:
        checkpoints that have the number after both.
    """
    keys = ["blocks", "seed", "checkpoint"]
    table = table.merge(with_truth(certified)[[*keys, "truth"]], on=keys, how="left")
    return pd.DataFrame(
        [
            {"blocks": int(str(blocks)), "measure": MEASURES[name].label, **_of(part, name)}
            for blocks, part in table.groupby("blocks")
            for name in MEASURES
            if name in part
        ]
    )


def _of(part: pd.DataFrame, name: str) -> dict[str, float]:
    alike: dict[str, float] = {}
    areas: dict[str, float] = {}
    counts: dict[str, list[int]] = {"gone": [], "hidden": []}
    for perturbation in PERTURBATIONS:
        own = part[part["perturbation"] == perturbation]
        found = [one for one in _alike(own, name) if not math.isnan(one)]
        alike[f"alike_{perturbation}"] = float(np.mean(found)) if found else math.nan
        sign = 1 if MEASURES[name].high else -1
        numbers = {truth: _numbers(own, name, truth, sign) for truth in counts}
        areas |= auc(numbers["gone"], numbers["hidden"]).columns(f"auc_{perturbation}")
        for truth, values in numbers.items():
            counts[truth].append(len(values))
    both = np.array([*alike.values()])
    mean = 0.0 if (both == 0).any() else len(both) / float((1 / both).sum())
    return {
        **alike,
        "robustness": math.nan if np.isnan(both).any() else mean,
        **areas,
        **{f"n_{truth}": min(found) for truth, found in counts.items()},
    }


def _alike(own: pd.DataFrame, name: str) -> Iterator[float]:
    for _, base in own.groupby("seed"):
        reference = base.loc[base["checkpoint"] == "never", name]
        if len(reference):
            for value in base.loc[base["truth"] == "gone", name]:
                yield alikeness(float(value), float(reference.iloc[0]))


def _numbers(own: pd.DataFrame, name: str, truth: str, sign: int) -> Numbers:
    rows = own[own["truth"] == truth]
    return Numbers.of((sign * rows[name]).tolist(), rows["seed"].tolist())
