"""Stage `compare`: the tables of the comparison, and a row for every edit."""

from __future__ import annotations

import math

import pandas as pd
import torch

from mechinterp.audit import tables as comparison
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.measures.decomposition import readout
from mechinterp.measures.region import region_toxicity
from mechinterp.measures.statistics import random_directions
from mechinterp.models.names import h_down
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, edits_at, edits_of, has_edits
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tables."""
    baseline = Baseline.load(run.folder / "evidence" / "base")
    tuned = ((method, Evidence.load(run.folder / "evidence" / method)) for method in run.config.studied)
    found = comparison.compare(baseline, tuned, top_neurons=run.config.comparison.top_neurons)
    found.save(run.folder / "tables")
    for method in run.config.studied:
        if has_edits(run, method):
            table = _edits_table(run, baseline, method)
            run.write_table(edits_at(method), table)


def _edits_table(run: Run, baseline: Baseline, method: str) -> pd.DataFrame:
    """Every edit on its own: how its region's toxicity and its write changed (the mechanism of many edits)."""
    direction = ToxicProbe.load(run.folder / "probe.safetensors").direction
    vanilla, rows = checkpoint_of(run, "vanilla"), []
    random: dict[int, torch.Tensor] = {}  # the null's directions, once per block
    for delta in edits_of(run, method):
        ours = {vanilla.names.value_parameter(delta.block)[0], vanilla.names.value_bias_parameter(delta.block)}
        values_alone = set(delta.tensors) <= ours
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
                **toxicity.reduction_rate.columns("toxicity_reduction_rate"),
                "null_z": toxicity.null.z,
                "null_p": toxicity.null.p,
                # an edit of W_V alone leaves what flows into it as it was: its erasure needs no new recording
                **{
                    f"erasure_{name}": float(inflow @ (readout(after, w) - readout(before, w)))
                    if values_alone
                    else math.nan
                    for name, w in baseline.inputs.directions.items()
                },
                "loss_edit_first": delta.log[0].loss_edit if delta.log else float("nan"),
                "loss_edit_last": delta.log[-1].loss_edit if delta.log else float("nan"),
            }
        )
    return pd.DataFrame(rows)
