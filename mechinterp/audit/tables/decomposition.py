"""Erase or bypass: per block, summed over blocks with a verdict, and the neurons with the largest terms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from mechinterp.audit.evidence import Baseline, Evidence, Place
from mechinterp.measures.decomposition import BlockDecomposition, decompose, erasure_share
from mechinterp.measures.verdict import Validity, judge_share
from mechinterp.models.names import h_down


def decomposition(
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
