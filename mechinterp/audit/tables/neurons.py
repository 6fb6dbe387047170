"""Which neurons carry the change: groups under three definitions and a cumulative curve, with their null."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.evidence import Evidence
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table
from mechinterp.measures.intervals import ends
from mechinterp.measures.neurons import (
    DEFINITIONS,
    GROUPS,
    Definition,
    GroupSums,
    Neurons,
    Null,
    cumulative,
    curve_points,
    null_of,
    sum_groups,
    sums_by_input,
)
from mechinterp.measures.statistics import NullComparison, percentile_ends, resample_weights
from mechinterp.models.names import h_down


def neuron_tables(contrast: Contrast) -> dict[str, pd.DataFrame]:
    """`neuron_groups` and `neuron_curve`, over all blocks, a set of rows for each direction and place.

    The groups are those of the means over all inputs; intervals resample the inputs and leave the groups as they are.
    """
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
    base, groups, curves = baseline.evidence, [], []
    for place in baseline.inputs.places:
        activations = [part.recordings[place.name] for part in (base, evidence)]
        hooks = [h_down(block) for block in range(base.null_readouts.shape[1])]
        a, a_new = (torch.cat([recording.mean(hook) for hook in hooks]) for recording in activations)
        points = curve_points(len(a))
        null = null_of(_along_random(a, a_new, base, evidence), points)
        low, high = null.band
        sizes = activations[0].group_sizes
        weights = resample_weights(len(sizes), resamples=2000, seed=baseline.inputs.seed, sizes=sizes)
        for direction in baseline.inputs.directions:
            readouts = base.readouts[direction], evidence.readouts[direction]
            neurons = Neurons(a, a_new, readouts[0].flatten(), readouts[1].flatten())
            key = {"method": method, "direction": direction, "position": place.name}
            for definition in DEFINITIONS:
                group = neurons.assign(definition)
                by_input = sums_by_input(
                    ((activations[0].groups[hook], activations[1].groups[hook]) for hook in hooks),
                    readouts[0],
                    readouts[1],
                    group.reshape(readouts[0].shape),
                    len(GROUPS[definition]),
                )
                sums = sum_groups(neurons, group, len(GROUPS[definition]))
                groups += [{**key, **row} for row in _group_rows(definition, sums, by_input, null, weights)]
            curve = cumulative(neurons, points)
            curves.append(
                pd.DataFrame(
                    {
                        **key,
                        "n_neurons": points,
                        "share_of_neurons": points / len(a),
                        "cumulative_change": curve.change,
                        "cumulative_erasure": curve.erasure,
                        "cumulative_bypass": curve.bypass,
                        "null_low": low,
                        "null_high": high,
                    }
                )
            )
    return {"neuron_groups": pd.DataFrame(groups), "neuron_curve": pd.concat(curves, ignore_index=True)}


def _along_random(a: Tensor, a_new: Tensor, base: Evidence, evidence: Evidence) -> Iterator[Neurons]:
    """The same neurons along one random direction after the other."""
    for before, after in zip(base.null_readouts, evidence.null_readouts, strict=True):
        yield Neurons(a, a_new, before.double().flatten(), after.double().flatten())


def _group_rows(
    definition: Definition,
    sums: GroupSums,
    by_input: tuple[Float[Tensor, "input group"], Float[Tensor, "input group"]],
    null: Null,
    weights: Float[Tensor, "resample input"],
) -> list[dict[str, object]]:
    """A row for each group, and one for all neurons; of a share of all there is no null."""
    shares, compared = sums.share_of_reduction, null.compare(definition, sums.share_of_reduction)
    nothing = NullComparison(math.nan, math.nan, math.nan, math.nan)
    of_null = [*zip(null.shares[definition].mean(0).tolist(), compared, strict=True), (math.nan, nothing)]
    n_all = int(sums.n_neurons.sum())
    columns: dict[str, list] = {
        "n_neurons": [*sums.n_neurons.tolist(), n_all],
        "share_of_neurons": [*(sums.n_neurons / n_all).tolist(), 1.0],
    }
    for name in ("erasure", "bypass", "change", "reduction", "increase"):
        values = getattr(sums, name)
        columns[name] = [*values.tolist(), float(values.sum())]
    columns["share_of_reduction"] = [*shares.tolist(), float(shares.sum())]
    columns["null_share_mean"] = [mean for mean, _ in of_null]
    columns["null_z"] = [found.z for _, found in of_null]
    columns["null_p"] = [found.p for _, found in of_null]
    for name, values in (("erasure", by_input[0]), ("bypass", by_input[1]), ("change", by_input[0] + by_input[1])):
        every = torch.cat([values, values.sum(1, keepdim=True)], dim=1)
        columns |= dict(zip(ends(name), percentile_ends(weights @ every), strict=True))
    names = [*GROUPS[definition], "all"]
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [{"definition": definition, "group": name, **row} for name, row in zip(names, rows, strict=True)]


NEURON_GROUPS = Table(
    name="neuron_groups",
    title="Neuron groups",
    row="a group of neurons, for each tuned checkpoint, direction, position and definition of the groups",
    keys=("method", "direction", "position"),
    columns={
        "definition": (
            "what decides the group beside the sign of the value vector: the change of the activation, of what the "
            "neuron writes (projection), or the sign of the base’s activation"
        ),
        "group": "toxic or anti-toxic value vectors, and which way it went; all: every neuron",
        "n_neurons, share_of_neurons": "size of the group, and its share of all neurons",
        "erasure, bypass": "the two parts of the group’s change",
        "change, reduction, increase": "net, and its negative and positive parts; group all is the block sum",
        "share_of_reduction": "the group’s share of the gross reduction",
        "null_share_mean, null_z, null_p": (
            "the group’s share of the gross reduction along random directions, and how far its own is from it"
        ),
    },
    intervals=("erasure", "bypass", "change"),
    stage="compare",
    make=lambda contrast: contrast.shared(neuron_tables)["neuron_groups"],
)
NEURON_CURVE = Table(
    name="neuron_curve",
    title="Cumulative curve over neurons",
    row="a number of neurons, those that lower the write most first, for each tuned checkpoint, direction and position",
    keys=("method", "direction", "position"),
    columns={
        "n_neurons, share_of_neurons": "how many are added up, and their share of all",
        "cumulative_change, cumulative_erasure, cumulative_bypass": "the sum of their changes, and its two parts",
        "null_low, null_high": "95% range of the sum along random directions",
    },
    printed=False,
    stage="compare",
    make=lambda contrast: contrast.shared(neuron_tables)["neuron_curve"],
)
