"""Stage `origins`: which of the changed weights carry the change of every tuned checkpoint."""

from __future__ import annotations

from mechinterp.audit.evidence import Baseline
from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.measuring import Origins, origins_of, origins_tables
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tables."""
    vanilla, settings = checkpoint_of(run, "vanilla"), run.config.origins
    baseline = Baseline.load(run.folder / "evidence" / "base")
    asked = Asked.of(
        vanilla,
        instances_of(run, "test"),
        baseline.unsafe.tolist(),
        prompts=settings.prompts,
        tokens=settings.tokens,
        seed=run.seed,
        truncate=run.config.truncate,
    )
    found: list[Origins] = []
    for method in run.config.studied:
        progress = reporter.progress(f"origins: {method}")
        with opened(run, method) as tuned:
            found.append(
                origins_of(vanilla, tuned, asked, method=method, settings=settings, seed=run.seed, progress=progress)
            )
    for name, table in origins_tables(found).items():
        run.write_table(name, table)
