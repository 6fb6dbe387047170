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
    columns={"step": "of training", "loss": "of the step, in nats", "*": "as TRL logs it"},
    optional=True,
    printed=False,
    reported=False,
)
