"""The judge of a run."""

from __future__ import annotations

import json

from mechinterp.answers.judges import ClassifierJudge, EmbeddedJudge, Judge
from mechinterp.runs.study.run import Run


def judge_of(run: Run) -> Judge:
    """The judge of responses: the user's own, or one that is fitted on the run's labelled responses."""
    if run.config.judge is not None:
        return ClassifierJudge.load(run.config.judge, device=run.config.device)
    rows = json.loads((run.folder / "data" / "responses.json").read_text(encoding="utf-8"))
    return EmbeddedJudge.fit([text for text, _ in rows], [safe for _, safe in rows], seed=run.seed)
