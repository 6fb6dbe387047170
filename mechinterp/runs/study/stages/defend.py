"""Stage `defend`: answers and defense success of every checkpoint; each edit on its own instance."""

from __future__ import annotations

from functools import partial

import pandas as pd

from mechinterp.answers import defense
from mechinterp.answers.flags import flags_table
from mechinterp.answers.judged import joined
from mechinterp.data.storage.files import replacing
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of, edits_of, has_edits
from mechinterp.runs.study.edited import edited_instances
from mechinterp.runs.study.judging import judge_of
from mechinterp.runs.study.questions import asked_knowledge
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """`defense.csv`, `flags.csv` and the responses."""
    chosen = {instance.id: instance for instance in edited_instances(run)}
    ask = partial(
        defense.defend,
        judge=judge_of(run),
        max_new_tokens=run.config.max_new_tokens,
        knowledge=asked_knowledge(run),
        truncate=run.config.truncate,
    )
    results, edited = [], [method for method in run.config.studied if has_edits(run, method)]
    for method in ("vanilla", *(method for method in run.config.studied if method not in edited)):
        progress = reporter.progress(f"defend: {method}")
        results.append(ask(checkpoint_of(run, method), list(chosen.values()), method=method, progress=progress))
    vanilla = checkpoint_of(run, "vanilla")
    # edits are asked with the suffix that they were made with, and that is asked of the vanilla model alone, too
    suffixes = {name: next(edits_of(run, name)).settings.get("suffix") for name in edited}
    for suffix in dict.fromkeys(filter(None, suffixes.values())):
        results.append(ask(vanilla, list(chosen.values()), method="suffix", suffix=suffix))
    for method, suffix in suffixes.items():
        progress, parts = reporter.progress(f"defend: {method}, edit by edit"), []
        for done, delta in enumerate(edits_of(run, method), 1):
            with delta.applied(vanilla) as changed:
                parts.append(ask(changed, [chosen[delta.instance]], method=method, suffix=suffix))
            progress(done, len(chosen))
        results.append(joined(parts))
    with replacing(run.folder / "responses") as folder:
        for result in results:
            result.save(folder / f"{result.method}.jsonl")
    run.write_table("defense", pd.DataFrame([result.row() for result in results]))
    run.write_table("flags", pd.concat([flags_table(result, ask.keywords["judge"]) for result in results]))
