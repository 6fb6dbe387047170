"""What single attacks that train models or move their weights leave besides their points."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

ATTACK_RELEARN = Table(
    name="attack_relearn",
    title="How fast it is relearnt",
    row="a curve of relearning of a checkpoint and a read-out or rate, over the same prompts",
    keys=("method", "quantity", "n"),
    columns={
        "attack": "relearn",
        "setting": "what is taught, and whether by adapters (lora) or by all weights (full)",
        "role": "never (one that never learnt the behaviour) or tuned",
        "doses": "numbers of steps after which it was looked at",
        "largest_dose": "the most steps",
        "steps_to_half": "the fewest of these steps after which recovery is at least 0.5; empty where none is",
        "area": "area under recovery over log(1 + steps), of 1 for a behaviour that is back at once; not clipped",
        "area_excess": "area less that of the model that never learnt, taught the same texts in the same order",
        "reason": "why one of them is undefined",
    },
    intervals=("area", "area_excess"),
    decides=("steps_to_half", "area", "area_excess"),
    optional=True,
    stage="attack",
)
ATTACK_ABLATE_DIFFERENCE = Table(
    name="attack_ablate_difference",
    title="The direction in which tuning shifts the stream",
    row="a block of a tuned checkpoint and a direction that is taken out of it",
    keys=("method",),
    columns={
        "direction": "difference (of tuning on unsafe prompts and on harmless ones) or refusal of the base",
        "block": "after which the stream is read, from 0",
        "length": "of the direction, in units of the stream",
        "swapped_length": "mean length with tuned and base swapped at random for each prompt",
        "cosine_to_refusal": "with the base’s refusal direction after the same block",
        "log_odds_one_block": (
            "of the unsafe answer without the direction in the stream after this block, mean over validation prompts "
            "of the attacker’s"
        ),
        "log_odds_all": "the same without it in all that is written",
        "chosen_one_block, chosen_all": "whether this block is the one whose direction the attack takes out",
    },
    decides=("length", "log_odds_one_block", "log_odds_all"),
    optional=True,
    stage="attack",
)
ATTACK_TRANSPLANT = Table(
    name="attack_transplant",
    title="The fewest groups that bring it back",
    row="a step of the greedy set of a tuned checkpoint",
    keys=("method",),
    columns={
        "groups": "partition: kinds of weights or blocks",
        "step": "number of groups put back, from 1",
        "group": "the one that is put back at this step",
        "recovery_on_validation": "of the mean log-odds, on the attacker’s prompts by which the group is chosen",
    },
    decides=("group", "recovery_on_validation"),
    optional=True,
    stage="attack",
)
