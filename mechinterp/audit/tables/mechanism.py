"""The region's toxicity and the shift of its activations (Fig 5), and the shift in the middle stream (Fig 8)."""

from __future__ import annotations

import pandas as pd
import torch

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.measures.region import activation_shift, cosines, region_toxicity
from mechinterp.models.names import h_down, h_mid


def mechanism(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame:
    """The row of Fig 5: toxicity of the region and shift of its activations, at the last prompt token."""
    seed, block, base = baseline.inputs.seed, baseline.inputs.block, baseline.evidence
    toxicity = region_toxicity(base.values, evidence.values, baseline.inputs.directions["probe"], seed=seed)
    hook, place = h_down(block), "prompt_last"
    shift = activation_shift(base.recordings[place].inputs[hook], evidence.recordings[place].inputs[hook], seed=seed)
    row = {
        "method": method,
        "layer": block,
        "toxicity_base": toxicity.base,
        "toxicity": toxicity.new,
        "toxicity_reduction_rate": toxicity.reduction_rate.value,
        "toxicity_reduction_rate_low": toxicity.reduction_rate.low,
        "toxicity_reduction_rate_high": toxicity.reduction_rate.high,
        "null_z": toxicity.null.z,
        "null_p": toxicity.null.p,
        "ill_conditioned": toxicity.ill_conditioned,
        "top20_toxicity_base": toxicity.top[20][0],
        "top20_toxicity": toxicity.top[20][1],
        "activation_shift_rate": shift.rate.value,
        "activation_shift_rate_low": shift.rate.low,
        "activation_shift_rate_high": shift.rate.high,
        "activation_shift_rate_per_input": shift.per_input,
        "n_inputs": evidence.recordings[place].n_inputs,
        "top128_toxicity_base": toxicity.top[128][0],
        "top128_toxicity": toxicity.top[128][1],
    }
    return pd.DataFrame([row])


def middle_shift(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame | None:
    """Fig 8: the middle stream of some inputs, in the base and tuned.

    Both sets are standardised together; x is the projection on their mean difference, y the first principal component.
    The level of an input's toxic activation is the tercile, over both sets, of the mean activation of the 20 value
    vectors most toxic in the base: 0 low, 1 middle, 2 high. None where blocks have no middle stream.
    """
    block, base, inputs = baseline.inputs.block, baseline.evidence, list(baseline.inputs.middle)
    if not (evidence.middle and base.middle):
        return None
    states = torch.cat([part.middle[h_mid(block)].double() for part in (base, evidence)])
    spread = states.std(0)
    states = (states - states.mean(0)) / torch.where(spread > 0, spread, 1.0)
    n = len(inputs)
    difference = states[n:].mean(0) - states[:n].mean(0)
    length = difference.norm()
    component = torch.linalg.svd(states, full_matrices=False).Vh[0]
    component = component * torch.sign(component[component.abs().argmax()])  # a fixed sign
    toxic = cosines(base.values, baseline.inputs.directions["probe"]).topk(min(20, len(base.values))).indices
    activity = torch.cat([part.middle[h_down(block)][:, toxic].double().mean(1) for part in (base, evidence)])
    edges = torch.quantile(activity, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    return pd.DataFrame(
        {
            "method": method,
            "checkpoint": ["base"] * n + [method] * n,
            "input": inputs * 2,
            "shift_component": (states @ difference / (length if length > 0 else 1.0)).numpy(),
            "first_component": (states @ component).numpy(),
            "toxic_activation": activity.numpy(),
            "toxic_activation_level": torch.bucketize(activity, edges).numpy(),
        }
    )
