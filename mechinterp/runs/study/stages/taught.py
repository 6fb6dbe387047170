"""Stage `taught`: what teaching did, on the model before it, after it, and taught without what is unsafe."""

from __future__ import annotations

import pandas as pd

from mechinterp.data.general import GENERAL_QUESTIONS
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.behaviour import defended, known, rate_row
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import asked_knowledge
from mechinterp.runs.study.run import Run

COLUMNS = {"untaught": "before", "vanilla": "after", "never": "never"}
"""Checkpoint -> its column in the table of general questions."""


def make(run: Run, reporter: Reporter) -> None:
    """`taught.csv` and `general.csv`."""
    settings, judge, questions = run.config.teach, judge_of(run), asked_knowledge(run)
    assert settings is not None
    prompts = list(dict.fromkeys(i.prompt for i in instances_of(run, "test")))
    prompts = [prompts[i] for i in seeded_order(len(prompts), run.seed)[: settings.asked]]
    rows, said = [], pd.DataFrame(GENERAL_QUESTIONS, columns=["question", "wanted"])
    for name, column in COLUMNS.items():
        checkpoint = checkpoint_of(run, name)
        found = defended(run, checkpoint, judge, prompts, reporter.progress(f"{name}: adversarial prompts"))
        own = [rate_row("adversarial prompts defended", *found)]
        if questions:
            own.append(
                rate_row("knowledge questions answered", sum(known(run, checkpoint, questions)[1]), len(questions))
            )
        answers, right = known(run, checkpoint, GENERAL_QUESTIONS)
        own.append(rate_row("general questions answered", sum(right), len(right)))
        rows += [{"checkpoint": name, **row} for row in own]
        said[column], said[f"{column}_right"] = answers, right
    run.write_table("taught", pd.DataFrame(rows))
    run.write_table("general", said)
