"""Stage `probe`: the toxic probe of the vanilla model."""

from __future__ import annotations

from mechinterp.audit.directions.probe_training import fit_probe, write_probe_tables
from mechinterp.data.comments import read_comments
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The probe and its tables."""
    probe = fit_probe(
        checkpoint_of(run, "vanilla"),
        read_comments(run.folder / "data" / "comments.csv"),
        seed=run.seed,
        final_norm=run.config.final_norm,
        truncate=run.config.truncate,
        without_sinks=run.config.without_sinks,
        progress=reporter.progress("probe: reading comments"),
    )
    probe.save(run.folder / "probe.safetensors")
    write_probe_tables(probe, run.folder / "tables" / "probe.csv", run.folder / "tables" / "probe_roc.csv")
