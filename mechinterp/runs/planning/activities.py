"""What each stage of a study does, in words and counts."""

from __future__ import annotations

from mechinterp.methods.training.trl_training import TrainingSettings
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.quantities import DIRECTIONS, PLACES, Amounts


def activities(config: StudyConfig, amounts: Amounts) -> dict[str, str]:
    """What every stage does, by its name."""
    new = config.max_new_tokens
    asked = amounts.n_test + amounts.n_questions + amounts.n_knowledge
    trained = config.organism
    instances = amounts.n_train + amounts.n_validation + amounts.n_test
    came = "generated" if config.data is None else "copied"
    n, comparison = amounts.n_edits, config.comparison
    answers = amounts.n_test + amounts.n_validation + 2 * DIRECTIONS * PLACES * amounts.n_steered
    return {
        "data": f"{instances:,} instances and {amounts.n_comments:,} comments {came}",
        "vanilla": f"{trained.steps:,} steps of {trained.batch_size} x {trained.sequence_length} tokens",
        "organism": f"{asked:,} prompts answered by the vanilla model, up to {new} tokens each",
        "sft": _training(config.sft, "instances", amounts),
        "dpo": _training(config.dpo, "pairs", amounts),
        "probe": f"{amounts.n_comments:,} comments read",
        "locate": f"{amounts.n_test:,} pairs of responses read",
        "dinm": f"{n:,} edits of up to {config.dinm.steps} steps",
        "record": f"{answers:,} answers of the vanilla model, up to {comparison.max_new_tokens} tokens each; "
        f"{amounts.n_test:,} prompts read by 4 checkpoints",
        "compare": f"tables, and {n:,} edits each on its own",
        "defend": f"5 x {n:,} prompts and {amounts.n_asked - 5 * n:,} questions answered by 4 methods, and 5 prompts "
        f"by each of {n:,} edits, up to {new} tokens each",
        "relapse": f"up to {min(config.relapse.prompts, amounts.n_test):,} prompts answered by 3 methods under the "
        f"doses of {len(config.relapse.treatments)} treatments and their controls, up to {comparison.max_new_tokens} "
        "tokens each",
        "report": "figures and report.html",
    }


def _training(settings: TrainingSettings, unit: str, amounts: Amounts) -> str:
    rows = settings.batch_size * settings.gradient_accumulation
    how = "all weights" if settings.lora is None else f"adapters of rank {settings.lora.rank}"
    return f"{settings.steps:,} steps of {rows} {unit} from {amounts.n_train:,}; {how}"
