"""The judge of a run."""

from __future__ import annotations

import json

from mechinterp.answers.choosing import judge_named, judges_of
from mechinterp.answers.judges import EmbeddedJudge, Judge
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.splits import SPLITS, about_of


def judge_of(run: Run) -> Judge:
    """The judge of responses, or two: the user's own, or one that is fitted on the run's labelled responses.

    Of another behaviour than unsafe answers its own.
    """

    def fitted() -> Judge:
        rows = json.loads((run.folder / "data" / "responses.json").read_text(encoding="utf-8"))
        return EmbeddedJudge.fit([text for text, _ in rows], [safe for _, safe in rows], seed=run.seed)

    config = run.config
    if (about := about_of(config)) is not None and about.judge is not None:
        return about.judge([pair for split in SPLITS for pair in instances_of(run, split)], run.seed)
    given = judges_of(config.judge, config.judge_responses)
    return judge_named(given, fitted, device=config.device, safe_label=config.judge_safe_label)
