"""Direct preference optimisation of safe over unsafe responses, through TRL's DPOTrainer.

As in the paper, it starts from the SFT checkpoint, which is also the reference.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field
from transformers import PreTrainedModel

from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.training.sft import sft
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


class DpoSettings(TrainingSettings):
    """Settings of DPO."""

    learning_rate: float = Field(5e-5, gt=0)
    beta: float = Field(0.1, gt=0, description="weight of the divergence from the reference")


def train_dpo(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    settings: DpoSettings | None = None,
    name: str = "dpo",
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Tune a copy of a checkpoint to prefer the safe to the unsafe response of every adversarial prompt.

    Args:
        checkpoint: the model to start from and to stay near (the paper's: SFT); left as it was.
        instances: training instances; their adversarial prompts and both responses are used.
        seed: of the order of the examples and of adapters' initial weights.

    Returns:
        The tuned checkpoint and the trainer's log.
    """
    settings = settings or DpoSettings()
    columns = {"chosen": "safe", "rejected": "unsafe"}
    rows = training_rows(checkpoint.tokenizer, instances, columns, settings.max_length, chat=checkpoint.chat)

    def make_trainer(model: PreTrainedModel, folder: str, peft_config: Any) -> Any:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        arguments = trainer_arguments(settings, folder, seed=seed, device=checkpoint.device)
        return DPOTrainer(
            model=model,
            # given, because TRL would otherwise load the reference from the folder or hub id in the model's config;
            # with adapters the reference is the model with them switched off
            ref_model=copy.deepcopy(model) if peft_config is None else None,
            args=DPOConfig(**{"beta": settings.beta, **arguments}),
            train_dataset=Dataset.from_list(rows),
            processing_class=trl_tokenizer(checkpoint),
            peft_config=peft_config,
        )

    return run_trainer(checkpoint, make_trainer, settings, name=name, seed=seed, progress=progress)


def dpo(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint for all of the task's instances, tuned from the one that `sft` gives."""
    tuned, log = task.made.get("dpo"), list[dict[str, float]]()
    if tuned is None:
        settings = task.settings_of("dpo", DpoSettings)
        (start,) = (treatment.checkpoint for treatment in sft(checkpoint, task))
        assert start is not None
        task.note(f"dpo: training on {many(len(task.training), 'instance')}, {many(settings.steps, 'step')}")
        progress = task.progress("dpo: training")
        tuned, log = train_dpo(start, task.training, seed=task.seed, settings=settings, progress=progress)
    yield Treatment("dpo", tuple(task.instances), checkpoint=tuned, log=tuple(log))


def _work(settings: DpoSettings, texts: Texts) -> Work:
    """Of pairs of responses, and the reference's opinion of both."""
    longer = max(texts.safe, texts.unsafe)
    return training_work(settings, texts, longer, unit="pairs", sequences=2, passes=4, references=1)


DPO = Recipe(dpo, DpoSettings, responses=("safe", "unsafe"), work=_work)
