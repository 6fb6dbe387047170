"""The score that a judge gives each response, where it can give one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.answers.holding import Holding
from mechinterp.answers.judges import Judge
from mechinterp.answers.two_judges import deciding
from mechinterp.data.normalised import normalised

_logger = logging.getLogger(__name__)


def score_responses(judge: Judge, responses: Sequence[str], prompts: Sequence[str] | None = None) -> list[float | None]:
    """Probability of safe of each response; None for an empty one, or one without a word that the judge knows.

    Args:
        judge: see `judges`; of two the one that decides.
        responses: texts.
        prompts: what each answers; a `FoldJudge` must know, and a `Holding`.
    """
    judge = deciding(judge)
    rows = [row for row, response in enumerate(responses) if normalised(response)]
    spoken = [responses[row] for row in rows]
    if isinstance(judge, FoldJudge | Holding):
        found = judge(spoken, None if prompts is None else [prompts[row] for row in rows])
    else:
        found = np.asarray(judge(spoken), dtype=float)
    scores: list[float | None] = [None] * len(responses)
    for row, score in zip(rows, found, strict=True):
        scores[row] = None if np.isnan(score) else float(score)
    if unknown := int(np.isnan(found).sum()):
        _logger.warning("%d of %d responses have no word that the judge knows: they are neutral", unknown, len(spoken))
    return scores
