"""Stage `locate`: the toxic layer of every test instance."""

from __future__ import annotations

from mechinterp.audit.location import histogram, locate
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """`located.csv` and `toxic_layer.csv`."""
    vanilla = checkpoint_of(run, "vanilla")
    progress = reporter.progress("locate: instances")
    truncate, without_sinks = run.config.truncate, run.config.without_sinks
    instances = instances_of(run, "test")
    located = locate(vanilla, instances, truncate=truncate, without_sinks=without_sinks, progress=progress)
    run.write_table("located", located)
    run.write_table("toxic_layer", histogram(located, vanilla.n_blocks))
