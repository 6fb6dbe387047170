"""The base's most toxic value vectors in the tuned checkpoints: their drift, and whether their neurons still fire."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.top_vectors import Place, vector_table
from mechinterp.models.names import h_down


def value_vectors(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame:
    """`value_vectors.csv`: see `vectors.vector_table`; activations are means of h_down at the last prompt token."""
    top, base = baseline.inputs.vectors, " base"  # no label of a checkpoint
    return vector_table(
        top,
        {method: dict(zip(top.places, evidence.vectors, strict=True))},
        activations={base: _activations(baseline, baseline.evidence), method: _activations(baseline, evidence)},
        base=base,
    )


def _activations(baseline: Baseline, evidence: Evidence) -> dict[Place, float]:
    """Mean activation of every listed neuron at the last prompt token."""
    recording, places = evidence.recordings["prompt_last"], baseline.inputs.vectors.places
    means = {block: recording.mean(h_down(block)) for block in sorted({block for block, _ in places})}
    return {(block, neuron): float(means[block][neuron]) for block, neuron in places}


def toxic_activations(method: str, baseline: Baseline, evidence: Evidence) -> pd.DataFrame | None:
    """Mean activation of the most toxic value vectors' neurons over the first greedy tokens (Lee et al. 2024).

    Ranked by cosine with the probe's direction. `same` text is the base's for both checkpoints, so that a change is the
    model's; on its `own` text each reads what it would say itself, and the change is of both. None where no tokens were
    generated.
    """
    rows = [
        {
            "method": method,
            "text": {"fixed": "same", "on_policy": "own"}[text],
            "rank": rank,
            "block": block,
            "neuron": neuron,
            "activation_base": float(baseline.evidence.first_tokens[text][rank - 1]),
            "activation": float(found[rank - 1]),
            "n_inputs": len(baseline.inputs.prompts),
        }
        for text, found in evidence.first_tokens.items()
        for rank, (block, neuron) in enumerate(baseline.inputs.followed, 1)
    ]
    return pd.DataFrame(rows) if rows else None
