"""Stage `dpo`: the preference-tuned checkpoint, from SFT's."""

from __future__ import annotations

import pandas as pd

from mechinterp.files import write_table
from mechinterp.methods.dpo import train_dpo
from mechinterp.reporting import Reporter
from mechinterp.study.checkpoints import checkpoint_of
from mechinterp.study.instances import instances_of
from mechinterp.study.run import Run


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
