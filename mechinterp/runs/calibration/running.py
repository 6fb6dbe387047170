"""The meta-evaluation of one study: its checkpoints of known truth made and measured, each kept as soon as it is there.

Of a study that was stopped what is up to date is not made again: neither the organism, its twins and its evidence
(stages) nor a checkpoint that was measured with the same code, settings and models.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mechinterp.audit.evidence import Baseline
from mechinterp.audit.store import Store
from mechinterp.data.storage.provenance import code_of, library_versions
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.calibration.measuring import Instrument, plain_row
from mechinterp.runs.calibration.perturbing import perturbed_rows
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.calibration.subjects import Subjects
from mechinterp.runs.calibration.twins import twin_stage
from mechinterp.runs.stages import Runner, locked
from mechinterp.runs.study import Study
from mechinterp.runs.study.checkpoints import checkpoint_of

STAGES = ("data", "vanilla", "never", "sft", "probe", "locate", "record")
"""Of the study: what is measured rests on these."""


def meta_evaluate(
    study: Study, *, settings: MetaSettings | None = None, reporter: Reporter | None = None
) -> pd.DataFrame:
    """Make and measure a study's checkpoints of known truth; `tables/certificate.csv` in its folder, row by row.

    With `settings.perturbed` also `tables/perturbed.csv`, see `perturbing`.

    Args:
        study: with `never` and SFT, of an organism or a taught model (this without further twins); the stages that it
            lacks are run.
        settings: see `MetaSettings`.
        reporter: told what is being done.

    Returns:
        A row per checkpoint, see `audit.certificate`.
    """
    settings, reporter = settings or MetaSettings(), reporter or Silent()
    study.run(reporter, only=STAGES)
    with locked(study.folder):
        runner = Runner(study.folder, note=reporter.note)
        for number in range(settings.twins):
            runner.run(twin_stage(study, number + 1, reporter))
        return _measured(study, settings, reporter)


def _measured(study: Study, settings: MetaSettings, reporter: Reporter) -> pd.DataFrame:
    store, baseline = Store(study.folder / "meta"), Baseline.load(study.folder / "evidence" / "base")
    judge = study.judge
    instrument = Instrument(study, baseline, judge, settings, store, reporter)
    prompts = instrument.attacking.examiner.known.prompts
    subjects = Subjects(study, baseline, judge, prompts, settings, reporter)
    wanted = list(subjects)
    known = {name: checkpoint_of(study, name).fingerprint for name in ("vanilla", "never", "sft")}
    key = {"blocks": instrument.base.n_blocks, "seed": study.seed}
    made_with = [
        *(code_of(__name__), library_versions(), known, study.seed, baseline.inputs.fingerprint, instrument.given),
        settings.model_dump(mode="json", include={"attack", "origins", "depth_prompts", "decoding_prompts"}),
        study.config.model_dump(mode="json", include={"sft", "max_new_tokens"}),
    ]
    rows: list[dict[str, Any]] = []
    for done, subject in enumerate(wanted, 1):

        def measure(subject: Any = subject) -> dict[str, Any]:
            return plain_row(instrument.measure(subject.make(), subject.name))

        found = store.remember("checkpoints", [made_with, subject.name, subject.kind, subject.depends], measure)
        reporter.note(f"{done} of {len(wanted)}: {subject.name}: {found['sentence']}")
        rows.append({**key, "checkpoint": subject.name, "kind": subject.kind, **found})
        study.write_table("certificate", pd.DataFrame(rows))
    again: list[dict[str, Any]] = []
    for found in perturbed_rows(subjects, instrument, store, made_with) if settings.perturbed else ():
        reporter.note(f"{found['checkpoint']}, {found['perturbation']}: {found['sentence']}")
        again.append({**key, **found})
        study.write_table("perturbed", pd.DataFrame(again))
    return pd.DataFrame(rows)
