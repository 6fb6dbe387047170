"""A study's calibration, kept in its folder as one of its stages are."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.certificate import read_calibration
from mechinterp.data.storage.provenance import library_versions
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.calibration.running import CalibrationSettings, calibrate
from mechinterp.runs.stages import Runner, Stage, locked
from mechinterp.runs.study import Study
from mechinterp.runs.study.dependencies import ASKING, setting_of
from mechinterp.runs.study.given import chat_of, judge_of, vanilla_of
from mechinterp.runs.study.made import tuned_in


def calibrated(
    study: Study, *, settings: CalibrationSettings | None = None, reporter: Reporter | None = None
) -> pd.DataFrame:
    """The study's calibration, `tables/calibration.csv` in its folder: made now, or read if it is up to date."""
    settings, reporter = settings or CalibrationSettings(), reporter or Silent()

    def run() -> None:
        study.write_table("calibration", calibrate(study, settings=settings, reporter=reporter))

    given = [vanilla_of(study), judge_of(study), chat_of(study)]
    used = f"{ASKING} studied sft max_new_tokens comparison.max_new_tokens seed"
    names = " ".join([used, *(one.settings for one in given)]).split()
    stage = Stage(
        "calibrate",
        run,
        makes=["tables/calibration.csv"],
        needs=[
            *("evidence/base", "data/train.json", *tuned_in(study).split()),
            *(path for one in given for path in one.needs.split()),
        ],
        settings={
            **{name: setting_of(study, name) for name in names},
            "own": settings.model_dump(mode="json"),
            "versions": library_versions(),
        },
        code=[calibrate.__module__],
        reads={what: files for one in given for what, files in one.reads.items()},
    )
    with locked(study.folder):
        Runner(study.folder, note=reporter.note).run(stage)
    return read_calibration(study.place_of("calibration"))
