"""Erase or bypass: per block, summed over blocks with a verdict, and the neurons with the largest terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.directions.standard import PER_PROMPT
from mechinterp.audit.evidence import PLACES, Baseline, Evidence, Place
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table
from mechinterp.measures.decomposition import BlockDecomposition, ErasureShare, decompose, erasure_share
from mechinterp.measures.local_verdict import Validity, judge_share
from mechinterp.models.names import h_down


def decomposition(contrast: Contrast) -> dict[str, pd.DataFrame]:
    """Section 6 of the methods: per block, summed with a verdict, and the neurons with the largest terms."""
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
    rows, verdicts, neurons = [], [], []
    for direction, place, blocks, sizes in _decomposed(baseline, evidence):
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
        share = erasure_share(blocks, sizes, seed=baseline.inputs.seed)
        verdicts.append({**key, **_verdict(blocks, share, place, contrast.checks[direction, place.name])})
        neurons += [{**key, **neuron} for neuron in _top_neurons(blocks, contrast.top_neurons)]
    tables = {"decomposition": rows, "local_verdict": verdicts, "neurons": neurons}
    return {name: pd.DataFrame(table) for name, table in tables.items() if table}


def _decomposed(
    baseline: Baseline, evidence: Evidence
) -> Iterator[tuple[str, Place, Sequence[BlockDecomposition], Float[Tensor, " group"]]]:
    """Direction, place, blocks and sizes of groups; last along each prompt's own direction, where that was measured."""
    for place in baseline.inputs.places:
        sizes = baseline.evidence.recordings[place.name].group_sizes
        for direction in baseline.inputs.directions:
            yield direction, place, decompose_blocks(baseline.evidence, evidence, direction, place.name), sizes
    if (terms := evidence.per_prompt) is not None:
        yield PER_PROMPT, PLACES[0], terms.blocks, terms.group_sizes


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
    blocks: Sequence[BlockDecomposition], share: ErasureShare, place: Place, validity: Validity
) -> dict[str, object]:
    verdict, reason = judge_share(share, validity)
    if place.text == "on_policy":
        verdict, reason = "undecided", "each checkpoint read its own tokens, so that bypass includes the change of text"
    changes = [abs(block.change) for block in blocks]
    return {
        **share.share.columns("erasure_share"),
        "peak_block": int(np.argmax(changes)) if any(changes) else None,
        "verdict": verdict,
        **share.change.columns("change"),
        **share.erasure.columns("erasure"),
        **share.bypass.columns("bypass"),
        "in_play": validity.in_play,
        "reason": reason,
    }


def _top_neurons(blocks: Sequence[BlockDecomposition], wanted: int) -> list[dict[str, object]]:
    """The neurons whose terms are largest, over all blocks."""
    size = torch.stack([block.erasure.abs() + block.bypass.abs() for block in blocks])
    neurons = []
    for flat in size.flatten().topk(min(wanted, size.numel())).indices.tolist():
        block, neuron = divmod(flat, size.shape[1])
        terms = {"erasure": float(blocks[block].erasure[neuron]), "bypass": float(blocks[block].bypass[neuron])}
        neurons.append({"block": block, "neuron": neuron, **terms})
    return neurons


LOCAL_VERDICT = Table(
    name="local_verdict",
    title="Local verdicts",
    row="a tuned checkpoint, direction and position: where each block’s write fell, summed over blocks",
    keys=("method", "direction", "position"),
    columns={
        "erasure_share": (
            "|erasure| / (|erasure| + |bypass|), between 0 (all bypass) and 1 (all erasure), with its 95% interval "
            "over inputs"
        ),
        "peak_block": "the block at which the toxic write changed most",
        "verdict": "erased, bypassed, mixed or undecided: what the interval of the erasure share says",
        "change, erasure, bypass": (
            "change of the toxic write summed over blocks, and its two parts, in the direction’s unit; negative is "
            "less toxic"
        ),
        "in_play": "whether the direction passes the checks of the table validity at that position",
        "reason": "why a verdict is undecided",
    },
    intervals=("erasure_share", "change", "erasure", "bypass"),
    decides=("erasure_share", "in_play", "verdict"),
    stage="compare",
    make=lambda contrast: contrast.shared(decomposition)["local_verdict"],
)
DECOMPOSITION = Table(
    name="decomposition",
    title="Decomposition by block",
    row="a block of a tuned checkpoint, for each direction and position",
    keys=("method", "direction", "position", "block"),
    columns={
        "write_base, write": "mean toxic write of the block, before and after",
        "change": "of the write, in units of the residual stream",
        "erasure, bypass, bias": "the three parts of its change; they sum to it exactly",
    },
    stage="compare",
    make=lambda contrast: contrast.shared(decomposition)["decomposition"],
)
NEURONS = Table(
    name="neurons",
    title="Neurons with the largest terms",
    row="a neuron, for each tuned checkpoint, direction and position",
    keys=("method", "direction", "position", "block", "neuron"),
    columns={"erasure, bypass": "what this neuron alone adds to the two parts of its block’s change"},
    optional=True,
    stage="compare",
    make=lambda contrast: contrast.shared(decomposition).get("neurons"),
)
