"""Stage `depth`: how deep every method's change goes, against a model that never learnt to answer unsafely."""

from __future__ import annotations

from mechinterp.audit.depth import DepthTables, Drops, answer_drops, depth_texts
from mechinterp.audit.evidence import Baseline
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tables; without such a model that of the scores says so."""
    found = _measured(run, reporter) if run.config.has_never else DepthTables.without_reference(run.config.studied)
    for name, table in found.tables.items():
        run.write_table(name, table)


def _measured(run: Run, reporter: Reporter) -> DepthTables:
    vanilla, baseline = checkpoint_of(run, "vanilla"), Baseline.load(run.folder / "evidence" / "base")
    texts = depth_texts(vanilla, baseline, instances_of(run, "test"))

    def drops(name: str) -> Drops:
        if texts is None:
            return Drops.none(vanilla.n_blocks)
        with opened(run, name) as source:
            return answer_drops(vanilla, source, texts, progress=reporter.progress(f"depth: {name}"))

    never = drops("never")
    return DepthTables.of({method: drops(method) for method in run.config.studied}, never, seed=run.seed)
