"""The base's most toxic value vectors in the tuned checkpoints: their drift, and whether their neurons still fire."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.table import Table
from mechinterp.audit.top_vectors import Place, subspace_table, vector_table
from mechinterp.models.names import h_down


def value_vectors(contrast: Contrast) -> pd.DataFrame:
    """`value_vectors.csv`: see `vectors.vector_table`; activations are means of h_down at the last prompt token."""
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
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


def toxic_activations(contrast: Contrast) -> pd.DataFrame | None:
    """Mean activation of the most toxic value vectors' neurons over the first greedy tokens (Lee et al. 2024).

    Ranked by cosine with the probe's direction. `same` text is the base's for both checkpoints, so that a change is the
    model's; on its `own` text each reads what it would say itself, and the change is of both. None where no tokens were
    generated.
    """
    method, baseline, evidence = contrast.method, contrast.baseline, contrast.evidence
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


VALUE_VECTORS = Table(
    name="value_vectors",
    title="Value vectors",
    row="one of the base’s value vectors closest to a direction, for each tuned checkpoint and ranking",
    keys=("method", "direction", "block", "neuron"),
    columns={
        "ranking": "by cosine with the direction, or by projection on it",
        "rank": "1 is the closest",
        "cosine, projection, cosine_tuned, projection_tuned": (
            "with and along the direction; tuned: of the vector at the same place"
        ),
        "norm": "length of the base’s vector",
        "drift_cosine, drift_relative": "cosine with its former self, and length of the change over its former length",
        "tokens": "what the base’s vector promotes through the unembedding",
        "activation_base, activation": "mean activation of its neuron at the last prompt token, before and after",
    },
    stage="compare",
    make=value_vectors,
)
TOXIC_SUBSPACE = Table(
    name="toxic_subspace",
    title="Toxic subspace",
    row="a component of the base’s value vectors closest to a direction",
    keys=("direction",),
    columns={
        "component": "1 is the largest",
        "singular_value": "of the normalised vectors (SVD)",
        "variance_share": "of the normalised most toxic value vectors (SVD)",
        "cosine_with_direction": "of the component",
        "tokens, tokens_opposite": "what the component promotes through the unembedding, at either end",
    },
    stage="compare",
    make=lambda contrast: subspace_table(contrast.baseline.inputs.vectors),
    once=True,
)
TOXIC_ACTIVATIONS = Table(
    name="toxic_activations",
    title="Activation of the most toxic vectors",
    row="one of the most toxic value vectors, for each tuned checkpoint and text",
    keys=("method", "block", "neuron"),
    columns={
        "text": "same: the base’s own tokens for all; own: each model’s",
        "rank": "by cosine with the probe’s direction, 1 the most toxic",
        "activation_base, activation": "mean over the first tokens, before and after",
        "n_inputs": "prompts answered",
    },
    optional=True,
    stage="compare",
    make=toxic_activations,
)
