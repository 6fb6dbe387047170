"""How the study's checkpoints were made, as tables: every edit on its own, and the logs of training."""

from __future__ import annotations

from dataclasses import replace

from mechinterp.audit.tables.table import Table

EDITS = Table(
    name="edits",
    title="Single edits",
    row="the edit of one instance, on its own",
    keys=("instance", "layer"),
    columns={
        "toxicity_reduction_rate": "of the region of the edit’s block: see the table mechanism",
        "null_z, null_p": "T’s change against the same change along random directions: z-score and two-sided p",
        "erasure_*": "toxic write erased by the edit of this instance along that direction; negative is less toxic",
        "loss_edit_first, loss_edit_last": "what the edit lowers, at its first and last step, in nats",
    },
    intervals=("toxicity_reduction_rate",),
)
EDITS_OF_ANOTHER = replace(EDITS, name="edits_*", title="Single edits of another method", optional=True, printed=False)
TRAINING = Table(
    name="training_*",
    title="Log of training, of the method in its name",
    row="a logged step",
    keys=(),
    columns={"step": "of training", "loss": "of the step, in nats", "*": "as the trainer logs it"},
    optional=True,
    printed=False,
    reported=False,
)
DINM_RATES = Table(
    name="dinm_rates",
    title="Learning rate of the edits",
    row="a learning rate that was tried on validation instances; 0 for the model without an edit",
    keys=("n",),
    columns={
        "learning_rate": "of dinm",
        "defended": "share of the edited instances whose own prompt their edit answers safely",
        "defended_others": "the same of the prompts of the other ones",
        "known": "share of knowledge questions answered correctly, by every edit",
        "chosen": "whether the study edits with it: the most defended and known together, the smallest of equals",
    },
    optional=True,
    stage="rates",
)
