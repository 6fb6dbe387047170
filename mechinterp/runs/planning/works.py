"""What each stage of a study does, in words and in amounts; of a method, its recipe says it."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.treatments import outline
from mechinterp.data.general import GENERAL_QUESTIONS
from mechinterp.methods.method import Method
from mechinterp.methods.work import Work
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.sizes import Amounts, Shape

STEERINGS = 2 * 3 * 2
"""Answers of a prompt on which directions are checked: along and against three directions at two places."""

VALUE_ELEMENT = 5e-8
"""Seconds for each element of W_V to compare an edited region with its null and its bootstrap, on the CPU."""


def works(config: StudyConfig, methods: Sequence[Method], amounts: Amounts, shape: Shape | None) -> dict[str, Work]:
    """The work of every stage, by its name.

    Args:
        methods: that have a stage.
        shape: of the model; None where it is not known, and then only what is said in words counts.
    """
    texts, comparison, relapse, trained = amounts.texts, config.comparison, config.relapse, config.organism
    n_blocks, neurons, values = (shape.n_blocks, shape.neurons, shape.value_matrix) if shape else (1, 1, 1)
    n, n_test, prompt, n_tuned = texts.n_instances, amounts.n_test, texts.prompt, len(config.studied)
    new, compared_new = config.max_new_tokens, comparison.max_new_tokens
    n_edits = n * sum(method.per_instance and method.name in config.studied for method in methods)
    instances, asked = (
        texts.n_training + amounts.n_validation + n_test,
        n_test + amounts.n_questions + amounts.n_knowledge,
    )
    batch = trained.batch_size * trained.sequence_length
    answers = n_test + amounts.n_validation + STEERINGS * min(comparison.steering_inputs, n_test)
    own = n_test * (1 + n_tuned) if max(comparison.generated, comparison.first_tokens) else 0
    read = n_test * (1 + n_tuned) * (2 if comparison.first_tokens else 1) * (prompt + texts.unsafe)
    kept = neurons * (8 * min(n_test, 128) * len(comparison.places) + 4 * comparison.null_draws)
    questions = min(config.knowledge_questions, amounts.n_knowledge)
    defended = (5 * n + questions) * (1 + n_tuned)
    returning = min(relapse.prompts, n_test)
    # where the base runs beside the tuned model, every answer counts twice
    doses = sum((1 + TREATMENTS[name].beside) * (1 + draws) for name, _, draws in outline(relapse, n_blocks))
    treated = returning * (1 + n_tuned * (1 + doses))
    found = {
        "data": Work(
            f"{instances:,} instances and {amounts.n_comments:,} comments {'copied' if config.data else 'generated'}",
            models=0,
            opened=0,
            seconds=1,
            bytes_kept=5e3 * instances,
        ),
        "vanilla": Work(
            f"{trained.steps:,} steps of {trained.batch_size} x {trained.sequence_length} tokens",
            tokens=3 * trained.steps * batch,
            calls=3 * trained.steps,
            models=4,
            held=batch,
            opened=0,
            models_kept=1,
        ),
        "organism": Work(
            f"{asked:,} prompts answered by the vanilla model, up to {new} tokens each",
            answers=asked,
            asked=prompt,
            new=new,
        ),
        "probe": Work(f"{amounts.n_comments:,} comments read", tokens=amounts.n_comments * amounts.comment),
        "locate": Work(
            f"{n_test:,} pairs of responses read",
            tokens=4 * n_test * max(texts.safe, texts.unsafe),
            calls=2 * n_test,
            bytes_kept=400 * n_test,
        ),
        "record": Work(
            f"{answers:,} answers of the vanilla model, up to {compared_new} tokens each; {n_test:,} prompts read by "
            f"{1 + n_tuned} checkpoints",
            tokens=read + amounts.n_validation * prompt,
            answers=answers + own,
            asked=prompt,
            new=max(compared_new, comparison.generated, comparison.first_tokens),
            models=2,
            opened=2 + n_tuned,
            bytes_kept=(1 + n_tuned) * kept,
            values_kept=1 + n_tuned,
        ),
        "compare": Work(
            f"tables, and {n_edits:,} edits each on its own",
            seconds=1 + (n_edits + n_tuned) * values * VALUE_ELEMENT,
            bytes_kept=2e6,
        ),
        "defend": Work(
            f"5 x {n:,} prompts and {questions:,} questions answered by {1 + n_tuned} methods, and 5 prompts "
            f"by each of {n_edits:,} edits, up to {new} tokens each",
            answers=defended + 5 * n_edits,
            batches=(1 + n_tuned) + n_edits,
            asked=prompt,
            new=new,
            opened=1 + n_tuned,
            bytes_kept=2e3 * defended,
        ),
        "relapse": Work(
            f"up to {returning:,} prompts answered by {n_tuned} methods under the doses of {len(relapse.treatments)} "
            f"treatments and their controls, up to {compared_new} tokens each",
            answers=treated,
            batches=1 + n_tuned * (1 + doses),
            asked=prompt,
            new=compared_new,
            models=2,
            opened=2 + n_tuned,
            bytes_kept=1e3 * treated,
        ),
        "report": Work("figures and report.html", models=0, opened=0, seconds=8, bytes_kept=2e6),
    }
    if (teach := config.teach) is not None:
        read = 3 * teach.steps * teach.batch_size * (prompt + max(texts.safe, texts.unsafe))
        for name in ("teach", "never"):
            does = f"{teach.steps:,} steps of {teach.batch_size} conversations"
            found[name] = Work(does, tokens=read, models=5, models_kept=1)
        each = teach.asked + questions + len(GENERAL_QUESTIONS)
        found["taught"] = Work(f"3 x {each:,} prompts answered", answers=3 * each, asked=prompt, new=new)
    if config.comments is not None:
        found["probes"] = Work("real comments read")
    if (rates := config.dinm_rates) is not None:
        tried, texts_each = len(rates.learning_rates), rates.instances + rates.questions
        does = f"{rates.instances:,} edits at each of {tried} learning rates"
        answers = (1 + tried * rates.instances) * texts_each
        found["rates"] = Work(does, answers=answers, asked=prompt, new=new)
    for method in methods:
        work = method.recipe.work
        found[method.name] = Work(method.line) if work is None else work(config.settings_of(method.name), texts)
    return found
