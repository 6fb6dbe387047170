"""The region's toxicity and the shift of its activations (Fig 5), and the shift in the middle stream (Fig 8)."""

from __future__ import annotations

import pandas as pd
import torch

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table
from mechinterp.measures.region import activation_shift, cosines, region_toxicity
from mechinterp.models.names import h_down, h_mid


def mechanism(contrast: Contrast) -> pd.DataFrame:
    """The row of Fig 5 of a tuned checkpoint."""
    return mechanism_of(contrast.method, contrast.baseline, contrast.evidence)


def mechanism_of(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame:
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
        **toxicity.reduction_rate.columns("toxicity_reduction_rate"),
        "null_z": toxicity.null.z,
        "null_p": toxicity.null.p,
        "ill_conditioned": toxicity.ill_conditioned,
        "top20_toxicity_base": toxicity.top[20][0],
        "top20_toxicity": toxicity.top[20][1],
        **shift.rate.columns("activation_shift_rate"),
        "activation_shift_rate_per_input": shift.per_input,
        "activation_shift_dimension_share": shift.dimension_share,
        "n_inputs": evidence.recordings[place].n_inputs,
        "top128_toxicity_base": toxicity.top[128][0],
        "top128_toxicity": toxicity.top[128][1],
    }
    return pd.DataFrame([row])


def middle_shift(contrast: Contrast) -> pd.DataFrame | None:
    """Fig 8: the middle stream of some inputs, in the base and tuned.

    Both sets are standardised together, so that no dimension counts for more than another, were it massive; x is the
    projection on their mean difference, y the first principal component. The level of an input's toxic activation is
    the tercile, over both sets, of the mean activation of the 20 value vectors most toxic in the base: 0 low, 1 middle,
    2 high. None where blocks have no middle stream.
    """
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
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


MECHANISM = Table(
    name="mechanism",
    title="Mechanism",
    row="a tuned checkpoint",
    keys=("method", "layer"),
    columns={
        "toxicity_base, toxicity": (
            "T, the mean cosine between the region’s value vectors and the toxic direction, before and after"
        ),
        "toxicity_reduction_rate": ("(T base − T) / |T base|; its interval is a paired bootstrap over value vectors"),
        "null_z, null_p": "T’s change against the same change along random directions: z-score and two-sided p",
        "ill_conditioned": "whether T base cannot be told from zero, so that a rate of it means little",
        "top20_toxicity_base, top20_toxicity, top128_toxicity_base, top128_toxicity": (
            "T of the 20 and the 128 most toxic value vectors alone, before and after"
        ),
        "activation_shift_rate": "length of the change of the mean activation over the length of the base’s",
        "activation_shift_rate_per_input": "the mean of the inputs’ own rates",
        "activation_shift_dimension_share": "share that one neuron makes of the squared length of that change",
        "n_inputs": "prompts that the activations are means over",
    },
    intervals=("toxicity_reduction_rate", "activation_shift_rate"),
    stage="compare",
    make=mechanism,
)
MECHANISM_NEVER = Table(
    name="mechanism_never",
    title="The same of a model that never learnt the behaviour",
    row="a model that never learnt it, beside the base that did",
    keys=MECHANISM.keys,
    columns=MECHANISM.columns,
    intervals=MECHANISM.intervals,
    optional=True,
    stage="depth",
)
MIDDLE_SHIFT = Table(
    name="middle_shift",
    title="Shift of the middle stream",
    row="an input in the base, or in a tuned checkpoint",
    keys=("method", "checkpoint"),
    columns={
        "input": "number of the prompt",
        "shift_component, first_component": (
            "coordinates of the standardised stream between attention and MLP of the toxic layer, along the mean shift "
            "and the first principal component"
        ),
        "toxic_activation": "mean activation of the 20 most toxic value vectors",
        "toxic_activation_level": "its third among all points of the method: 0 low, 1 middle, 2 high",
    },
    optional=True,
    printed=False,
    stage="compare",
    make=middle_shift,
)
