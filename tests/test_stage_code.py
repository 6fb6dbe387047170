"""What a stage runs is among the code that its key knows: imports read from the source against calls that are made."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mechinterp
from mechinterp.data.storage.provenance import BESIDE, modules_of
from mechinterp.models.progress import Silent
from mechinterp.runs.study import Study
from mechinterp.runs.study.dependencies import stages_of
from mechinterp.runs.study.run import Run

PACKAGE = Path(mechinterp.__file__).parent


def modules_called(work: Callable[[], Any]) -> set[str]:
    """The modules of this package of which a function ran, in any thread."""
    files: set[str] = set()

    def see(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":  # importing a module is not using it
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    threading.setprofile(see)
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    own = [Path(file) for file in files if file.startswith(str(PACKAGE)) and file.endswith(".py")]
    names = [".".join(("mechinterp", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in own]
    return {name.removesuffix(".__init__") for name in names}


@pytest.mark.parametrize("stage", ["data", "organism", "probe", "locate", "dinm", "compare", "defend"])
def test_a_stage_runs_no_code_that_its_key_does_not_know(own_runs: Path, stage: str) -> None:
    study = Study.open(own_runs / "seed0")
    run = Run(study.config, study.seed, study.folder)
    (found,) = (one for one in stages_of(run, Silent()) if one.name == stage)
    called = modules_called(found.run)
    known = {*modules_of(*found.code), *(f"mechinterp.{name}" for name in BESIDE)}
    assert len(called) > 4
    assert called <= known
