"""Tables over several checkpoints of one kind: the steps of a training run, and constructions whose truth is known."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

TRAJECTORY = Table(
    name="trajectory",
    title="Trajectory",
    row="a quantity at a step of a training run, for each direction and position",
    keys=("method", "direction", "position"),
    columns={
        "trajectory": "name of the training run",
        "quantity": (
            "toxicity T of the region, its activation shift rate, or the change of the write, its erasure and bypass, "
            "and the erasure share"
        ),
        "step": "of training; 0 is the base",
        "value, low, high": "of the quantity, with the ends of its 95% interval",
    },
    optional=True,
)
CALIBRATION = Table(
    name="calibration",
    title="Calibration: checkpoints whose truth is known",
    row="a constructed checkpoint, for each direction",
    keys=("checkpoint", "direction", "n"),
    columns={
        "architecture, seed": "of the organism",
        "kind, start, t": "how it was made; for interpolations where from, and how far",
        "truth, expected, found, agrees": "what it is, what the decomposition should say and says, yes or no",
        "erasure_share, erasure, bypass, change": "as in the table verdict, at the last prompt token",
        "defense, defense_base": "share of safe answers, of the checkpoint and of the base",
        "vanishing, remainder": "what is 0 by construction, and the largest size found of it",
        "in_play, reason": "as in the table verdict",
        "relapse_found, relapse_agrees, relapse_reason": "what the relapse test says; empty where nothing is expected",
        "relapse_gain, relapse_by_activations, relapse_by_values, relapse_by_both, relapse_share_by_values": (
            "as in the table relapse_verdict"
        ),
        "relapse_n": "prompts of the relapse test",
        "code": "hash of the code that the row was made with",
    },
    intervals=(
        *("erasure_share", "erasure", "bypass", "change", "defense", "defense_base"),
        *("relapse_gain", "relapse_by_activations", "relapse_by_values", "relapse_by_both", "relapse_share_by_values"),
    ),
    optional=True,
    printed=False,
)
