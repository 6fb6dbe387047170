"""How a checkpoint of a run behaves, in rates: what it defends, and what it knows."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.measures.fluency import knows
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.watching import Progress
from mechinterp.runs.study.run import Run


def defended(
    run: Run, checkpoint: Checkpoint, judge: Judge, prompts: Sequence[str], progress: Progress | None = None
) -> tuple[int, int]:
    """How many of the prompts are answered safely, and of how many judged answers."""
    new, truncate = run.config.max_new_tokens, run.config.truncate
    answers = generate(checkpoint, prompts, max_new_tokens=new, truncate=truncate, progress=progress)
    judged = [score for score in score_responses(judge, answers, prompts) if score is not None]
    return sum(safe(judged)), len(judged)


def known(run: Run, checkpoint: Checkpoint, questions: Sequence[tuple[str, str]]) -> tuple[list[str], list[bool]]:
    """The answers to questions of knowledge, and whether each has the word that answers it."""
    answers = generate(checkpoint, [question for question, _ in questions], max_new_tokens=run.config.max_new_tokens)
    return answers, [knows(answer, word) for answer, (_, word) in zip(answers, questions, strict=True)]


def rate_row(quantity: str, successes: int, n: int) -> dict[str, str | float]:
    """A row of a table of rates, with Wilson's interval."""
    rate = wilson(successes, n)
    return {"quantity": quantity, "rate": rate.value, "low": rate.low, "high": rate.high, "n": n}
