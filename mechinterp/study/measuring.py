"""What a study measures of what it made: evidence, tables, defense, relapse, report; one function for each stage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch

from mechinterp import comparison
from mechinterp.config import METHODS
from mechinterp.evaluation import defense
from mechinterp.evidence import Baseline, Evidence, gather_evidence, prepare_baseline
from mechinterp.files import replacing, write_table
from mechinterp.measures.decomposition import readout
from mechinterp.measures.region import region_toxicity
from mechinterp.measures.statistics import random_directions
from mechinterp.models.comparability import check_comparable
from mechinterp.models.names import h_down
from mechinterp.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.relapse.testing import relapse_from_evidence
from mechinterp.reporting import Reporter

if TYPE_CHECKING:
    from mechinterp.study.study import Study


def make_record(study: Study, reporter: Reporter) -> None:
    """Evidence of every checkpoint, one tuned checkpoint in memory at a time."""
    with replacing(study.folder / "evidence") as folder:
        vanilla = study.checkpoint("vanilla")
        baseline = prepare_baseline(
            vanilla,
            study.instances("test"),
            study.probe,
            study.judge,
            block=study.block,
            seed=study.seed,
            fitting=study.instances("validation"),
            settings=study.config.comparison,
            truncate=study.config.truncate,
            note=lambda text: reporter.note(f"record: {text}"),
        )
        baseline.save(folder / "base")
        for method in METHODS:
            reporter.note(f"record: recording {method}")
            with study.opened(method) as tuned:
                check_comparable(vanilla, [tuned])
                gather_evidence(tuned, baseline.inputs).save(folder / method)


def make_compare(study: Study, reporter: Reporter) -> None:
    """The tables of the comparison, and a row for every edit."""
    baseline = Baseline.load(study.folder / "evidence" / "base")
    tuned = ((method, Evidence.load(study.folder / "evidence" / method)) for method in METHODS)
    found = comparison.compare(baseline, tuned, top_neurons=study.config.comparison.top_neurons)
    found.save(study.folder / "tables")
    write_table(study.folder / "tables" / "edits.csv", _edits_table(study, baseline))


def _edits_table(study: Study, baseline: Baseline) -> pd.DataFrame:
    """Every edit on its own: how its region's toxicity and its write changed (the mechanism of many edits)."""
    vanilla, rows = study.checkpoint("vanilla"), []
    random: dict[int, torch.Tensor] = {}  # the null's directions, once per block
    for delta in study.edits():
        with delta.applied(vanilla) as edited:
            after = edited.value_matrix(delta.block).cpu().clone()
        before = vanilla.value_matrix(delta.block).cpu()
        if delta.block not in random:
            random[delta.block] = random_directions(before, 1000, seed=study.seed)
        toxicity = region_toxicity(before, after, study.probe.direction, seed=study.seed, random=random[delta.block])
        inflow = baseline.evidence.recordings["prompt_last"].mean(h_down(delta.block))
        rows.append(
            {
                "instance": delta.instance,
                "layer": delta.block,
                "toxicity_reduction_rate": toxicity.reduction_rate.value,
                "toxicity_reduction_rate_low": toxicity.reduction_rate.low,
                "toxicity_reduction_rate_high": toxicity.reduction_rate.high,
                "null_z": toxicity.null.z,
                "null_p": toxicity.null.p,
                # an edit of W_V leaves what flows into it as it was: its erasure needs no new recording
                **{
                    f"erasure_{name}": float(inflow @ (readout(after, w) - readout(before, w)))
                    for name, w in baseline.inputs.directions.items()
                },
                "loss_edit_first": delta.log[0].loss_edit if delta.log else float("nan"),
                "loss_edit_last": delta.log[-1].loss_edit if delta.log else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def make_defend(study: Study, reporter: Reporter) -> None:
    """Answers and defense success of every checkpoint; each edit on its own instance."""
    chosen = {instance.id: instance for instance in study.edit_instances()}
    ask = partial(
        defense.defend,
        judge=study.judge,
        max_new_tokens=study.config.max_new_tokens,
        knowledge=study.asked_knowledge(),
        truncate=study.config.truncate,
    )
    results = []
    for method in ("vanilla", "sft", "dpo"):
        progress = reporter.progress(f"defend: {method}")
        results.append(ask(study.checkpoint(method), list(chosen.values()), method=method, progress=progress))
    vanilla = study.checkpoint("vanilla")
    suffix = study.config.dinm.suffix
    results.append(ask(vanilla, list(chosen.values()), method="suffix", suffix=suffix))
    progress, parts = reporter.progress("defend: dinm, edit by edit"), []
    for done, delta in enumerate(study.edits(), 1):
        with delta.applied(vanilla) as edited:
            parts.append(ask(edited, [chosen[delta.instance]], method="dinm", suffix=suffix))
        progress(done, len(chosen))
    results.append(defense.joined(parts))
    with replacing(study.folder / "responses") as folder:
        for result in results:
            result.save(folder / f"{result.method}.jsonl")
    write_table(study.folder / "tables" / "defense.csv", pd.DataFrame([result.row() for result in results]))


def make_relapse(study: Study, reporter: Reporter) -> None:
    """The relapse test of every tuned checkpoint."""
    vanilla = study.checkpoint("vanilla")
    tests: list[RelapseTest] = []
    baseline = Baseline.load(study.folder / "evidence" / "base")
    with replacing(study.folder / "relapse") as folder:
        folder.mkdir()
        for method in METHODS:
            evidence = Evidence.load(study.folder / "evidence" / method)
            with study.opened(method) as tuned:
                found = relapse_from_evidence(
                    vanilla,
                    tuned,
                    baseline,
                    evidence,
                    study.judge,
                    max_new_tokens=study.config.comparison.max_new_tokens,
                    settings=study.config.relapse,
                    base_responses=tests[0].base.responses if tests else None,
                    progress=reporter.progress(f"relapse: {method}"),
                )
            found.save(folder / method)
            tests.append(found)
    for name, table in relapse_tables(tests, decomposed_verdicts(study.table("verdict"))).items():
        write_table(study.folder / "tables" / f"{name}.csv", table)


def make_report(study: Study, reporter: Reporter) -> None:
    """Figures and the page."""
    from mechinterp.plates import draw_all
    from mechinterp.report import write_report

    with replacing(study.folder / "figures") as folder:
        drawn = draw_all(study.folder, folder)
        write_report(study.folder, drawn)
