"""Stage `dpo`: the preference-tuned checkpoint, from SFT's."""

from __future__ import annotations

import pandas as pd

from mechinterp.data.storage.tables import write_table
from mechinterp.methods.training.dpo import train_dpo
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The checkpoint and the trainer's log."""
    tuned, log = train_dpo(
        checkpoint_of(run, "sft"),
        instances_of(run, "train"),
        seed=run.seed,
        settings=run.config.dpo,
        progress=reporter.progress("dpo: training"),
    )
    tuned.save(run.folder / "checkpoints" / "dpo")
    write_table(run.folder / "tables" / "training_dpo.csv", pd.DataFrame(log))
