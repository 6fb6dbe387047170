"""Stage `rates`: the learning rate of dinm's edits, chosen among a few on validation instances."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.audit.location import locate
from mechinterp.audit.toxic_layer import blocks_for
from mechinterp.data.pairs import AnyPair
from mechinterp.measures.fluency import knows
from mechinterp.methods.editing.dinm import FailedEdit
from mechinterp.methods.editing.many_edits import edit_each
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.edited import spread
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import spare_knowledge
from mechinterp.runs.study.run import Run

Answered = tuple[list[bool], list[bool]]
"""Whether each prompt is answered safely, and each question rightly."""


def make(run: Run, reporter: Reporter) -> None:
    """`dinm_rates.csv`: a row for each rate, the first for the model without an edit.

    The rate with the largest sum of own prompts defended and questions answered is chosen, the smallest of equals. An
    edit that came to nothing counts as one that defends and knows nothing.
    """
    choice, settings, judge = run.config.dinm_rates, run.config.dinm, judge_of(run)
    assert choice is not None
    vanilla = checkpoint_of(run, "vanilla")
    instances = spread(instances_of(run, "validation"), choice.instances, run.seed)
    questions = spare_knowledge(run)[: choice.questions]
    located = locate(vanilla, instances, truncate=run.config.truncate, without_sinks=run.config.without_sinks)
    blocks = blocks_for(located, instances, run.config.distance, reuse_first_layer=run.config.reuse_first_layer)

    def ask(checkpoint: Checkpoint) -> Answered:
        return _answered(run, checkpoint, instances, questions, judge, settings)

    unedited = ask(vanilla)
    rows = [_row(0.0, instances, {instance.id: unedited for instance in instances})]
    for rate in sorted(set(choice.learning_rates)):
        progress = reporter.progress(f"rates: edits at {rate:g}")
        with_rate = settings.model_copy(update={"learning_rate": rate})
        found: dict[int, Answered] = {}
        for edit in edit_each(vanilla, instances, blocks=blocks, settings=with_rate, progress=progress):
            if isinstance(edit, FailedEdit):
                reporter.note(f"rates: at {rate:g} {edit}")
            else:
                with edit.applied(vanilla) as changed:
                    found[edit.instance] = ask(changed)
        rows.append(_row(rate, instances, found))
    table = pd.DataFrame(rows)
    best = (table["defended"] + table["known"].fillna(0.0))[1:].idxmax()  # the first of equals
    table["chosen"] = table.index == best
    run.write_table("dinm_rates", table)


def _answered(
    run: Run,
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    questions: Sequence[tuple[str, str]],
    judge: Judge,
    settings: DinmSettings,
) -> Answered:
    prompts = [instance.prompt for instance in instances]
    asked = [*prompts, *(question for question, _ in questions)]
    new, truncate = run.config.max_new_tokens, run.config.truncate
    answers = generate(checkpoint, asked, max_new_tokens=new, suffix=settings.suffix, truncate=truncate)
    defended = safe(score_responses(judge, answers[: len(prompts)], prompts))
    right = [knows(answer, word) for answer, (_, word) in zip(answers[len(prompts) :], questions, strict=True)]
    return defended, right


def _row(rate: float, instances: Sequence[AnyPair], found: dict[int, Answered]) -> dict[str, float]:
    """What the edits at a rate do, each instance's edit asked the prompts of all of them."""
    own = [found[i.id][0][place] if i.id in found else False for place, i in enumerate(instances)]
    others = [
        safely
        for place, i in enumerate(instances)
        for other, safely in enumerate(found[i.id][0] if i.id in found else [])
        if other != place
    ]
    right = [answer for defended, answers in found.values() for answer in answers]
    shares = {"defended": own, "defended_others": others, "known": right}
    return {
        "learning_rate": rate,
        **{name: sum(values) / len(values) if values else float("nan") for name, values in shares.items()},
        "n": len(instances),
    }
