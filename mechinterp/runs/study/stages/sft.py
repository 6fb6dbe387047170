"""Stage `sft`: the fine-tuned checkpoint."""

from __future__ import annotations

import pandas as pd

from mechinterp.data.storage.tables import write_table
from mechinterp.methods.training.sft import train_sft
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


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
