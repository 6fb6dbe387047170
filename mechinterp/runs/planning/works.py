"""What each stage of a study does, in words and in amounts; of a method, its recipe says it."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.audit.attacks.registry import ATTACKS
from mechinterp.audit.decodability import PROMPTS as DECODED
from mechinterp.audit.depth import PROMPTS
from mechinterp.audit.readouts import ANSWER_TOKENS
from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.treatments import outline
from mechinterp.data.counting import many
from mechinterp.data.general import GENERAL_QUESTIONS
from mechinterp.methods.method import Method
from mechinterp.methods.training.trl_training import training_work
from mechinterp.methods.work import Texts, Work
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.shape import Shape
from mechinterp.runs.study.stages.attack import BENIGN

STEERINGS = 2 * 3 * 2  # answers of a prompt: along and against three directions at two places
REGION = 5e-8  # seconds for an element of W_V to compare an edited region with its null and bootstrap


def works(config: StudyConfig, methods: Sequence[Method], texts: Texts, shape: Shape | None) -> dict[str, Work]:
    """The work of every stage, by its name.

    Args:
        methods: that have a stage.
        shape: of the model; None where it is not known, and then only what is said in words counts.
    """
    comparison, relapse, trained = config.comparison, config.relapse, config.organism
    n_blocks, neurons, values = (shape.n_blocks, shape.neurons, shape.value_matrix) if shape else (1, 1, 1)
    n_test, n_tuned, new, brief = texts.test, len(config.studied), config.max_new_tokens, comparison.max_new_tokens
    edits = texts.edited * sum(method.per_instance and method.name in config.studied for method in methods)
    twins = 2 if config.never else 1
    asked, instances = n_test + texts.questions + texts.knowledge, texts.train + texts.validation + n_test
    questions, returning = min(config.knowledge_questions, texts.knowledge), min(relapse.prompts, n_test)
    origins, compared = config.origins, min(config.origins.prompts, n_test)
    nodes = max(origins.nodes, origins.most_nodes)
    passes = 4 + 3 * nodes + (30 if origins.game != "never" else 0)  # a backward pass counts as two
    steered = n_test + texts.validation + STEERINGS * min(comparison.steering_inputs, n_test)
    pairs = n_test * (1 + n_tuned)  # of a prompt and a checkpoint
    own = pairs if max(comparison.generated, comparison.first_tokens) else 0  # answers of every checkpoint
    read = pairs * (2 if comparison.first_tokens else 1) * (texts.prompt + texts.unsafe)
    kept = neurons * (8 * min(n_test, 128) * len(comparison.places) + 4 * comparison.null_draws)
    # where the base runs beside the tuned model, every answer counts twice
    doses = sum((1 + TREATMENTS[name].beside) * (1 + draws) for name, _, draws in outline(relapse, n_blocks))
    treated, defended = 1 + n_tuned * (1 + doses), (texts.kinds * texts.edited + questions) * (1 + n_tuned)
    batch = trained.batch_size * trained.sequence_length
    found = {
        "data": Work(
            f"{many(instances, 'instance')}, {texts.comments:,} comments", models=0, bytes_kept=5e3 * instances
        ),
        "vanilla": Work(
            f"{trained.steps:,} steps of {batch:,} tokens",
            3 * trained.steps * batch,
            models=4,
            held=batch,
            models_kept=1,
        ),
        "organism": Work(
            f"{many(asked, 'prompt')} answered by the vanilla model{' and its twin' if twins > 1 else ''}",
            answers=twins * asked,
            batches=twins,
            new=new,
        ),
        "probe": Work(f"{texts.comments:,} comments read", texts.comments * texts.comment),
        "locate": Work(
            f"{many(n_test, 'pair')} of responses read",
            4 * n_test * max(texts.safe, texts.unsafe),
            bytes_kept=400 * n_test,
        ),
        "record": Work(
            f"{many(steered, 'answer')} of the vanilla model; {many(n_test, 'prompt')} read by "
            f"{many(1 + n_tuned, 'checkpoint')}",
            tokens=read + texts.validation * texts.prompt,
            answers=steered + own,
            new=max(brief, comparison.generated, comparison.first_tokens),
            models=2,
            bytes_kept=(1 + n_tuned) * kept,
            values_kept=1 + n_tuned,
        ),
        "compare": Work(
            f"tables, and {many(edits, 'edit')} each on its own",
            seconds=(edits + n_tuned) * values * REGION,
            bytes_kept=2e6,
        ),
        "defend": Work(
            f"{texts.kinds} x {texts.edited:,} prompts and {many(questions, 'question')} answered by "
            f"{many(1 + n_tuned, 'method')}, {texts.kinds} prompts by each of {many(edits, 'edit')}",
            answers=defended + texts.kinds * edits,
            batches=1 + n_tuned + edits,
            new=new,
            bytes_kept=2e3 * defended,
        ),
        "relapse": Work(
            f"up to {many(returning, 'prompt')} answered by {many(n_tuned, 'method')} under the doses of "
            f"{len(relapse.treatments)} treatments and their controls",
            answers=returning * treated,
            batches=treated,
            new=brief,
            models=2,
            bytes_kept=1e3 * returning * treated,
        ),
        "origins": Work(
            f"{many(compared, 'prompt')} with both answers read by up to {passes} models between the base and each of "
            f"{many(n_tuned, 'method')}",
            tokens=compared * 2 * (texts.prompt + origins.tokens) * passes * n_tuned,
            models=3,
            bytes_kept=2e5,
        ),
        "depth": Work(
            f"states of {many(1 + n_tuned, 'checkpoint')} after each of {many(n_blocks, 'block')} of the vanilla model",
            tokens=(1 + n_tuned) * (n_blocks + 3) / 2 * min(PROMPTS, n_test) * (texts.prompt + ANSWER_TOKENS),
            models=2,
        )
        if config.has_never
        else Work("there is no model that never learnt the behaviour", models=0),
        "report": Work("figures and report.html", models=0, seconds=8, bytes_kept=2e6),
    }
    if config.never:
        found["never"] = found["vanilla"]
    found |= _wanted(config, texts, n_blocks)
    for method in methods:
        work = method.recipe.work
        found[method.name] = Work(method.line) if work is None else work(config.settings_of(method.name), texts)
    return found


def _wanted(config: StudyConfig, texts: Texts, n_blocks: int) -> dict[str, Work]:
    """The work of the stages that a study has where its config asks for them."""
    n_test, n_tuned, new = texts.test, len(config.studied), config.max_new_tokens
    questions, found = min(config.knowledge_questions, texts.knowledge), dict[str, Work]()
    if (teach := config.teach) is not None:
        lessons = training_work(teach, texts, texts.safe, unit="conversations", sequences=1, passes=3, references=0)
        each = teach.asked + questions + len(GENERAL_QUESTIONS)
        found |= {"teach": lessons, "never": lessons}
        found["taught"] = Work(f"3 x {many(each, 'prompt')} answered", answers=3 * each, new=new)
    if config.attack.attacks:
        checkpoints = 1 + n_tuned + (config.teach is not None)
        points = sum(
            len(ATTACKS[name].points(config.attack.options_of(name), n_blocks)) for name in config.attack.attacks
        )
        each = min(config.attack.prompts, n_test) + questions + BENIGN
        found["attack"] = Work(
            f"{many(each, 'prompt')} answered by {many(checkpoints, 'checkpoint')} at {many(points, 'point')} of "
            f"{many(len(config.attack.attacks), 'attack')}; training and drawn answers not reckoned",
            answers=checkpoints * (1 + points) * each,
            batches=checkpoints * (1 + points),
            new=new,
            models=2,
            bytes_kept=2e6,
        )
    if config.decode:
        checkpoints = 2 + n_tuned + config.has_never
        found["decode"] = Work(
            f"states of {many(checkpoints, 'checkpoint')} after every block at up to "
            f"{many(min(DECODED, n_test), 'prompt')}, and probes on them",
            tokens=2 * checkpoints * min(DECODED, n_test) * texts.prompt,
            models=2,
        )
    if (circuits := config.circuits) is not None:
        checkpoints, alone = 1 + n_tuned, len(circuits.shares) * (1 + circuits.random)
        scored = (1 + 2 * n_tuned) * (2 + 3 * circuits.steps)  # passes of a pair: a tuned one's base is scored again
        found["circuits"] = Work(
            f"edges of {many(checkpoints, 'checkpoint')} scored in {many(circuits.steps, 'step')} on up to "
            f"{many(circuits.pairs, 'pair')} of prompts, {many(alone, 'circuit')} of each run alone"
            f"{'; cutting edge after edge (acdc) not reckoned' if circuits.search == 'acdc' else ''}",
            tokens=texts.prompt * (circuits.pairs * (scored + checkpoints * (3 + alone)) + texts.kinds * n_test),
            models=2,
            bytes_kept=2e6,
        )
    if (rates := config.dinm_rates) is not None:
        tried, answered = len(rates.learning_rates), rates.instances + rates.questions
        does = f"{rates.instances:,} edits at each of {tried} learning rates"
        found["rates"] = Work(does, answers=(1 + tried * rates.instances) * answered, new=new)
    return found
