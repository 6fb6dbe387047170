"""Stage `record`: evidence of every checkpoint, one tuned checkpoint in memory at a time."""

from __future__ import annotations

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.evidence import gather_evidence, prepare_baseline
from mechinterp.data.storage.files import replacing
from mechinterp.models.comparability import check_comparable
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.toxic_layer import block_of


def make(run: Run, reporter: Reporter) -> None:
    """The evidence."""
    with replacing(run.folder / "evidence") as folder:
        vanilla = checkpoint_of(run, "vanilla")
        baseline = prepare_baseline(
            vanilla,
            instances_of(run, "test"),
            ToxicProbe.load(run.folder / "probe.safetensors"),
            judge_of(run),
            block=block_of(run),
            seed=run.seed,
            fitting=instances_of(run, "validation"),
            settings=run.config.comparison,
            truncate=run.config.truncate,
            without_sinks=run.config.without_sinks,
            note=lambda text: reporter.note(f"record: {text}"),
        )
        baseline.save(folder / "base")
        for method in run.config.studied:
            reporter.note(f"record: recording {method}")
            with opened(run, method) as tuned:
                check_comparable(vanilla, [tuned])
                gather_evidence(tuned, baseline.inputs, base=vanilla).save(folder / method)
