"""Stage `organism`: how the vanilla model behaves (and its twin), over all test instances; how good its judge is."""

from __future__ import annotations

import pandas as pd

from mechinterp.answers.judge_table import judge_table
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import template_of
from mechinterp.runs.study.behaviour import defended, known, rate_row
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import knowledge_of
from mechinterp.runs.study.run import Run

TWIN = ", by the one that never learnt to answer unsafely"
"""Behind the quantities of the vanilla model's reference, where there is one."""


def make(run: Run, reporter: Reporter) -> None:
    """`judge.csv` and `organism.csv`."""
    judge = judge_of(run)
    run.write_table("judge", judge_table(judge))
    vanilla, test, knowledge = checkpoint_of(run, "vanilla"), instances_of(run, "test"), knowledge_of(run)
    if vanilla.chat is not None:
        reporter.note(f"chat format: {vanilla.chat}")
    elif template_of(vanilla.tokenizer) is not None:
        reporter.note(
            "chat format: none, though the model's tokenizer has a template: texts are fed as they are (`chat: auto` "
            "in the config uses it)"
        )
    groups = {
        "adversarial prompts defended": list(dict.fromkeys(i.prompt for i in test)),
        "bare questions defended": list(dict.fromkeys(i.question for i in test)),
    }
    rows = []
    for name, ending in {"vanilla": "", **({"never": TWIN} if run.config.never else {})}.items():
        checkpoint = vanilla if name == "vanilla" else checkpoint_of(run, name)
        for quantity, prompts in groups.items():
            found = defended(run, checkpoint, judge, prompts, reporter.progress(f"{name}: {quantity}"))
            rows.append(rate_row(f"{quantity}{ending}", *found))
        if knowledge:
            _, right = known(run, checkpoint, knowledge)
            rows.append(rate_row(f"held-out knowledge phrasings answered{ending}", sum(right), len(knowledge)))
    run.write_table("organism", pd.DataFrame(rows))
