"""Stage `relapse`: the relapse test of every tuned checkpoint."""

from __future__ import annotations

from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.audit.relapse.testing import relapse_from_evidence
from mechinterp.data.storage.files import replacing
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The tests and their tables."""
    vanilla, judge = checkpoint_of(run, "vanilla"), judge_of(run)
    tests: list[RelapseTest] = []
    baseline = Baseline.load(run.folder / "evidence" / "base")
    with replacing(run.folder / "relapse") as folder:
        folder.mkdir()
        for method in run.config.studied:
            evidence = Evidence.load(run.folder / "evidence" / method)
            with opened(run, method) as tuned:
                found = relapse_from_evidence(
                    vanilla,
                    tuned,
                    baseline,
                    evidence,
                    judge,
                    max_new_tokens=run.config.comparison.max_new_tokens,
                    settings=run.config.relapse,
                    base_responses=tests[0].base.responses if tests else None,
                    progress=reporter.progress(f"relapse: {method}"),
                )
            found.save(folder / method)
            tests.append(found)
    for name, table in relapse_tables(tests, decomposed_verdicts(run.table("local_verdict"))).items():
        run.write_table(name, table)
