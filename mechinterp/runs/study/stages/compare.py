"""Stage `compare`: the tables of the comparison, and a row for every edit."""

from __future__ import annotations

import pandas as pd
import torch

from mechinterp.audit import tables as comparison
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.data.storage.tables import write_table
from mechinterp.measures.decomposition import readout
from mechinterp.measures.region import region_toxicity
from mechinterp.measures.statistics import random_directions
from mechinterp.methods.studied import METHODS
from mechinterp.models.names import h_down
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, edits_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tables."""
    baseline = Baseline.load(run.folder / "evidence" / "base")
    tuned = ((method, Evidence.load(run.folder / "evidence" / method)) for method in METHODS)
    found = comparison.compare(baseline, tuned, top_neurons=run.config.comparison.top_neurons)
    found.save(run.folder / "tables")
    write_table(run.folder / "tables" / "edits.csv", _edits_table(run, baseline))


def _edits_table(run: Run, baseline: Baseline) -> pd.DataFrame:
    """Every edit on its own: how its region's toxicity and its write changed (the mechanism of many edits)."""
    direction = ToxicProbe.load(run.folder / "probe.safetensors").direction
    vanilla, rows = checkpoint_of(run, "vanilla"), []
    random: dict[int, torch.Tensor] = {}  # the null's directions, once per block
    for delta in edits_of(run):
        with delta.applied(vanilla) as edited:
            after = edited.value_matrix(delta.block).cpu().clone()
        before = vanilla.value_matrix(delta.block).cpu()
        if delta.block not in random:
            random[delta.block] = random_directions(before, 1000, seed=run.seed)
        toxicity = region_toxicity(before, after, direction, seed=run.seed, random=random[delta.block])
        inflow = baseline.evidence.recordings["prompt_last"].mean(h_down(delta.block))
        rows.append(
            {
                "instance": delta.instance,
                "layer": delta.block,
                "toxicity_reduction_rate": toxicity.reduction_rate.value,
                "toxicity_reduction_rate_low": toxicity.reduction_rate.low,
                "toxicity_reduction_rate_high": toxicity.reduction_rate.high,
                "null_z": toxicity.null.z,
                "null_p": toxicity.null.p,
                # an edit of W_V leaves what flows into it as it was: its erasure needs no new recording
                **{
                    f"erasure_{name}": float(inflow @ (readout(after, w) - readout(before, w)))
                    for name, w in baseline.inputs.directions.items()
                },
                "loss_edit_first": delta.log[0].loss_edit if delta.log else float("nan"),
                "loss_edit_last": delta.log[-1].loss_edit if delta.log else float("nan"),
            }
        )
    return pd.DataFrame(rows)
