"""Stage `depth`: how deep every method's change goes, against a model that never learnt to answer unsafely."""

from __future__ import annotations

from mechinterp.audit.depth import DepthTables, Drops, answer_drops, depth_questions, depth_texts
from mechinterp.audit.evidence import Baseline, gather_evidence
from mechinterp.audit.tables.mechanism import mechanism_of
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tables; without such a model that of the scores says so."""
    if not run.config.has_never:
        tables = DepthTables.without_reference(run.config.studied).tables
    else:
        baseline = Baseline.load(run.folder / "evidence" / "base")
        tables = _measured(run, baseline, reporter).tables
        with opened(run, "never") as never:
            tables["mechanism_never"] = mechanism_of("never", baseline, gather_evidence(never, baseline.inputs))
    for name, table in tables.items():
        run.write_table(name, table)


def _measured(run: Run, baseline: Baseline, reporter: Reporter) -> DepthTables:
    vanilla = checkpoint_of(run, "vanilla")
    instances = instances_of(run, "test")
    texts = depth_texts(vanilla, baseline, instances)

    def drops(name: str) -> Drops:
        if texts is None:
            return Drops.none(vanilla.n_blocks)
        with opened(run, name) as source:
            return answer_drops(vanilla, source, texts, progress=reporter.progress(f"depth: {name}"))

    never = drops("never")
    tuned = {method: drops(method) for method in run.config.studied}
    return DepthTables.of(tuned, never, depth_questions(baseline, instances), seed=run.seed)
