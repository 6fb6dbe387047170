"""Stage `sft`: the fine-tuned checkpoint."""

from __future__ import annotations

import pandas as pd

from mechinterp.files import write_table
from mechinterp.methods.sft import train_sft
from mechinterp.reporting import Reporter
from mechinterp.study.checkpoints import checkpoint_of
from mechinterp.study.instances import instances_of
from mechinterp.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The checkpoint and the trainer's log."""
    tuned, log = train_sft(
        checkpoint_of(run, "vanilla"),
        instances_of(run, "train"),
        seed=run.seed,
        settings=run.config.sft,
        progress=reporter.progress("sft: training"),
    )
    tuned.save(run.folder / "checkpoints" / "sft")
    write_table(run.folder / "tables" / "training_sft.csv", pd.DataFrame(log))
