"""The comparison: the evidence of tuned checkpoints against that of their base, as tables.

Toxicity of the region against the shift of its activations (Fig 5), the erase-or-bypass decomposition, the check
whether each direction is in play, a verdict, and the middle stream (Fig 8). No model is needed here.

What it does not establish: the decomposition attributes a change of a write to weights or inputs, along one direction;
it is no proof that restoring either would bring the behaviour back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mechinterp.errors import InputError
from mechinterp.evidence import Baseline, Evidence, Place
from mechinterp.files import write_table
from mechinterp.measures.decomposition import BlockDecomposition, decompose, erasure_share
from mechinterp.measures.region import activation_shift, cosines, region_toxicity
from mechinterp.measures.statistics import auroc, bootstrap, compare_with_null, random_directions
from mechinterp.measures.verdict import Validity, judge_share
from mechinterp.models.names import h_down, h_mid


@dataclass(frozen=True)
class MechanismComparison:
    """Tidy tables by name: `mechanism`, `decomposition`, `verdict`, `validity`, `neurons`, `middle_shift`."""

    tables: Mapping[str, pd.DataFrame]

    def save(self, folder: Path) -> None:
        """Write every table as CSV."""
        for name, table in self.tables.items():
            write_table(folder / f"{name}.csv", table)


def compare(baseline: Baseline, tuned: Iterable[tuple[str, Evidence]], *, top_neurons: int = 10) -> MechanismComparison:
    """Compare checkpoints with their base.

    Args:
        baseline: see `evidence.prepare_baseline`.
        tuned: (label, evidence) pairs, may be a generator that records one checkpoint after the other.
        top_neurons: neurons listed per method, direction and position.
    """
    checks = _check_directions(baseline)
    parts: dict[str, list[pd.DataFrame]] = {}
    for method, evidence in tuned:
        shape, base_shape = tuple(evidence.values.shape), tuple(baseline.evidence.values.shape)
        if shape != base_shape:
            raise InputError(f"{method} has value matrices of shape {shape}, the base of {base_shape}")
        tables = {
            "mechanism": _mechanism(method, baseline, evidence),
            **_decomposition(method, baseline, evidence, checks, top_neurons),
        }
        if evidence.middle and baseline.evidence.middle:
            tables["middle_shift"] = _middle_shift(method, baseline, evidence)
        for name, table in tables.items():
            parts.setdefault(name, []).append(table)
    if not parts:
        raise InputError("there are no tuned checkpoints to compare with the base")
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return MechanismComparison({**joined, "validity": _validity_table(baseline, checks)})


def _probe_direction(baseline: Baseline) -> Tensor:
    return baseline.inputs.directions["probe"]


def _mechanism(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame:
    """The row of Fig 5: toxicity of the region and shift of its activations, at the last prompt token."""
    seed, block, base = baseline.inputs.seed, baseline.inputs.block, baseline.evidence
    toxicity = region_toxicity(base.values, evidence.values, _probe_direction(baseline), seed=seed)
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


def _decomposition(
    method: str,
    baseline: Baseline,
    evidence: Evidence,
    checks: Mapping[tuple[str, str], Validity],
    top_neurons: int,
) -> dict[str, pd.DataFrame]:
    """Section 6 of the methods: per block, summed with a verdict, and the neurons with the largest terms."""
    rows, verdicts, neurons = [], [], []
    for place in baseline.inputs.places:
        for direction in baseline.inputs.directions:
            blocks = decompose_blocks(baseline.evidence, evidence, direction, place.name)
            key = {"method": method, "direction": direction, "position": place.name}
            rows += [
                {
                    **key,
                    "block": block,
                    "write_base": part.write_base,
                    "write": part.write,
                    "change": part.change,
                    "erasure": float(part.erasure.sum()),
                    "bypass": float(part.bypass.sum()),
                    "bias": part.bias,
                }
                for block, part in enumerate(blocks)
            ]
            verdicts.append({**key, **_verdict(blocks, baseline, place, checks[direction, place.name])})
            neurons += [{**key, **neuron} for neuron in _top_neurons(blocks, top_neurons)]
    tables = {"decomposition": rows, "verdict": verdicts, "neurons": neurons}
    return {name: pd.DataFrame(table) for name, table in tables.items() if table}


def decompose_blocks(base: Evidence, tuned: Evidence, direction: str, place: str) -> list[BlockDecomposition]:
    """The decomposition of every block along one direction at one place."""
    before, after = base.recordings[place], tuned.recordings[place]
    return [
        decompose(
            before.groups[h_down(block)],
            after.groups[h_down(block)],
            base.readouts[direction][block],
            tuned.readouts[direction][block],
            group_sizes=before.group_sizes,
            base_bias=float(base.biases[direction][block]),
            new_bias=float(tuned.biases[direction][block]),
        )
        for block in range(len(base.readouts[direction]))
    ]


def _verdict(
    blocks: list[BlockDecomposition], baseline: Baseline, place: Place, validity: Validity
) -> dict[str, object]:
    sizes = baseline.evidence.recordings[place.name].group_sizes
    share = erasure_share(blocks, sizes, seed=baseline.inputs.seed)
    verdict, reason = judge_share(share, validity)
    if place.text == "on_policy":
        verdict, reason = "undecided", "each checkpoint read its own tokens, so that bypass includes the change of text"
    changes = [abs(block.change) for block in blocks]
    return {
        "erasure_share": share.share.value,
        "erasure_share_low": share.share.low,
        "erasure_share_high": share.share.high,
        "peak_block": int(np.argmax(changes)) if any(changes) else None,
        "verdict": verdict,
        "change": share.change.value,
        "change_low": share.change.low,
        "change_high": share.change.high,
        "erasure": share.erasure.value,
        "erasure_low": share.erasure.low,
        "erasure_high": share.erasure.high,
        "bypass": share.bypass.value,
        "bypass_low": share.bypass.low,
        "bypass_high": share.bypass.high,
        "in_play": validity.in_play,
        "reason": reason,
    }


def _top_neurons(blocks: list[BlockDecomposition], wanted: int) -> list[dict[str, object]]:
    """The neurons whose terms are largest, over all blocks."""
    size = torch.stack([block.erasure.abs() + block.bypass.abs() for block in blocks])
    neurons = []
    for flat in size.flatten().topk(min(wanted, size.numel())).indices.tolist():
        block, neuron = divmod(flat, size.shape[1])
        terms = {"erasure": float(blocks[block].erasure[neuron]), "bypass": float(blocks[block].bypass[neuron])}
        neurons.append({"block": block, "neuron": neuron, **terms})
    return neurons


def _check_directions(baseline: Baseline) -> dict[tuple[str, str], Validity]:
    """Whether each direction is in play at each place."""
    seed, unsafe = baseline.inputs.seed, baseline.unsafe[baseline.checked]
    checks: dict[tuple[str, str], Validity] = {}
    for place in baseline.inputs.places:
        projections = baseline.evidence.recordings[place.name].projections.values()
        writes = torch.stack(list(projections)).sum(0)[baseline.checked]
        for column, name in enumerate(baseline.inputs.directions):
            steering = baseline.steering[name, place.steered_at]
            gain = steering.minus.double() - steering.plus.double()
            effect = bootstrap(lambda weights, gain=gain: weights @ gain, len(gain), seed=seed)  # type: ignore[misc]
            checks[name, place.name] = Validity(auroc(writes[:, column], unsafe, seed=seed), effect)
    return checks


def _validity_table(baseline: Baseline, checks: Mapping[tuple[str, str], Validity]) -> pd.DataFrame:
    """Section 6's validity check, a row per direction and place."""
    unsafe = baseline.unsafe[baseline.checked]
    answer = baseline.inputs.directions["answer"].double()
    random = random_directions(baseline.evidence.values, 1000, seed=baseline.inputs.seed)
    band = compare_with_null(0.0, random @ (answer / answer.norm()))
    rows = []
    places = {place.name: place for place in baseline.inputs.places}
    for (name, place), check in checks.items():
        direction = baseline.inputs.directions[name].double()
        steering = baseline.steering[name, places[place].steered_at]
        rows.append(
            {
                "direction": name,
                "position": place,
                "auroc": check.auroc.value,
                "auroc_low": check.auroc.low,
                "auroc_high": check.auroc.high,
                "n_unsafe": int(unsafe.sum()),
                "n_safe": int((~unsafe).sum()),
                "cosine_with_answer": float(torch.cosine_similarity(direction, answer, dim=0)),
                "cosine_null_low": band.low,
                "cosine_null_high": band.high,
                "steering_alpha": steering.alpha,
                "steering_defense_minus": float(steering.minus.double().mean()),
                "steering_defense_none": float(steering.none.double().mean()),
                "steering_defense_plus": float(steering.plus.double().mean()),
                "steering_effect": check.steering_effect.value,
                "steering_effect_low": check.steering_effect.low,
                "steering_effect_high": check.steering_effect.high,
                "steering_n": len(steering.none),
                "in_play": check.in_play,
                "reason": check.reason,
            }
        )
    return pd.DataFrame(rows)


def _middle_shift(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame:
    """Fig 8: the middle stream of some inputs, in the base and tuned.

    Both sets are standardised together; x is the projection on their mean difference, y the first principal component.
    The level of an input's toxic activation is the tercile, over both sets, of the mean activation of the 20 value
    vectors most toxic in the base: 0 low, 1 middle, 2 high.
    """
    block, base, inputs = baseline.inputs.block, baseline.evidence, list(baseline.inputs.middle)
    states = torch.cat([part.middle[h_mid(block)].double() for part in (base, evidence)])
    spread = states.std(0)
    states = (states - states.mean(0)) / torch.where(spread > 0, spread, 1.0)
    n = len(inputs)
    difference = states[n:].mean(0) - states[:n].mean(0)
    length = difference.norm()
    component = torch.linalg.svd(states, full_matrices=False).Vh[0]
    component = component * torch.sign(component[component.abs().argmax()])  # a fixed sign
    toxic = cosines(base.values, _probe_direction(baseline)).topk(min(20, len(base.values))).indices
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
