"""The relapse test of checkpoints whose truth is known: base and construction side by side, on the same prompts.

All blocks at once and without random controls: the verdict rests on neither smaller doses nor controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mechinterp.audit.certificate import EXPECTED
from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.relapse.testing import relapse_from_evidence
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.measures.intervals import with_ends
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.run import Run

_INTERVALS = ("gain", "by_activations", "by_values", "by_both", "share_by_values")
_NUMBERS = tuple(column for name in _INTERVALS for column in with_ends(name))


class Treating:
    """The relapse test of one construction after the other; the base answers once.

    Args:
        study: whose base is put back, and whose judge judges.
        baseline: its prompts are asked, of those that the base answers unsafely.
        prompts: how many of them.
    """

    def __init__(self, study: Run, baseline: Baseline, prompts: int) -> None:
        self._study, self._baseline, self._judge = study, baseline, judge_of(study)
        self._settings = RelapseSettings(
            prompts=prompts, treatments=("activations", "values", "both"), blocks="all", draws=0
        )
        self._known: Sequence[str] | None = None

    def __call__(self, kind: str, checkpoint: Checkpoint, evidence: Evidence) -> dict[str, object]:
        """The relapse test's columns of a row, empty where nothing is expected of a kind of construction."""
        if kind not in EXPECTED:
            nothing = dict.fromkeys((f"relapse_{name}" for name in (*_NUMBERS, "n")), math.nan)
            return {"relapse_found": "", "relapse_agrees": "", **nothing, "relapse_reason": ""}
        test = relapse_from_evidence(
            checkpoint_of(self._study, "vanilla"),
            checkpoint,
            self._baseline,
            evidence,
            self._judge,
            settings=self._settings,
            max_new_tokens=self._study.config.comparison.max_new_tokens,
            base_responses=self._known,
        )
        self._known, found = test.base.responses, test.verdict()
        agrees = "yes" if found["verdict"] == EXPECTED[kind][1] else "no"
        numbers = {f"relapse_{name}": found[name] for name in (*_NUMBERS, "n", "reason")}
        return {"relapse_found": found["verdict"], "relapse_agrees": agrees, **numbers}
