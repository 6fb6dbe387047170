"""Supervised fine-tuning on adversarial prompt -> safe response, through TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel

from mechinterp.data.counting import many
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.training.conversational_rows import Asked
from mechinterp.methods.training.trl_training import (
    Progress,
    TrainingSettings,
    run_trainer,
    trainer_arguments,
    training_rows,
    training_work,
    trl_tokenizer,
)
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class SftSettings(TrainingSettings):
    """Settings of SFT."""


def train_sft(
    checkpoint: Checkpoint,
    instances: Sequence[Asked],
    *,
    seed: int,
    settings: SftSettings | None = None,
    name: str = "sft",
    response: str = "safe",
    before_merge: Callable[[Any], None] | None = None,
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Fine-tune a copy of a checkpoint to give the safe response to every adversarial prompt.

    The loss is on the response and its end token only.

    Args:
        checkpoint: the model to start from; left as it was.
        instances: training instances; their adversarial prompts and safe responses are used.
        seed: of the order of the examples and of adapters' initial weights.
        response: the field of the response that is learned; the unsafe one makes an anti-expert.
        before_merge: shown the trained model with its adapters, before they are merged into its weights.

    Returns:
        The tuned checkpoint and the trainer's log.
    """
    settings = settings or SftSettings()
    rows = training_rows(
        checkpoint.tokenizer, instances, {"completion": response}, settings.max_length, chat=checkpoint.chat
    )

    def make_trainer(model: PreTrainedModel, folder: str, peft_config: Any) -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        arguments = trainer_arguments(settings, folder, seed=seed, device=checkpoint.device)
        return SFTTrainer(
            model=model,
            args=SFTConfig(**{"completion_only_loss": True, **arguments}),
            train_dataset=Dataset.from_list(rows),
            processing_class=trl_tokenizer(checkpoint),
            peft_config=peft_config,
        )

    return run_trainer(
        checkpoint, make_trainer, settings, name=name, seed=seed, progress=progress, before_merge=before_merge
    )


def sft(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint, tuned on the task's training instances, for all of its instances."""
    tuned, log = task.made.get("sft"), list[dict[str, float]]()
    if tuned is None:
        settings = task.settings_of("sft", SftSettings)
        task.note(f"sft: training on {many(len(task.training), 'instance')}, {many(settings.steps, 'step')}")
        progress = task.progress("sft: training")
        tuned, log = train_sft(checkpoint, task.training, seed=task.seed, settings=settings, progress=progress)
    yield Treatment("sft", tuple(task.instances), checkpoint=tuned, log=tuple(log))


def _work(settings: SftSettings, texts: Texts) -> Work:
    return training_work(settings, texts, texts.safe, unit="instances", sequences=1, passes=3, references=0)


SFT = Recipe(sft, SftSettings, responses=("safe",), work=_work)
