"""What SFT and DPO share: settings, left truncation, and a TRL trainer that leaves the caller's model alone."""

from __future__ import annotations

import copy
import logging
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import set_seed

from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.methods.training.conversational_rows import Asked, conversational_rows
from mechinterp.methods.training.trained_parameters import linear_maps, trained_parameters
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.cutting import Cut, keep_right
from mechinterp.models.text.special_tokens import Around, SpelledOut
from mechinterp.models.text.tokens import plain_text

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class LoraSettings(BaseModel):
    """Low-rank adapters instead of full fine-tuning (peft); merged into the weights at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear", "usual"] = Field(
        "all-linear",
        description="what is adapted: every linear map of the blocks, or what peft usually adapts in the architecture "
        "(of Llama and Mistral, queries and values)",
    )


class TrainingSettings(BaseModel):
    """Settings of a training run; what is not here is TRL's own default or goes through `extra`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(60, ge=1, description="optimiser steps")
    batch_size: int = Field(8, ge=1, description="examples per step and device")
    gradient_accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    max_length: int = Field(1600, ge=2, description="tokens of prompt + response; prompts are cut from the left")
    lora: LoraSettings | None = Field(None, description="peft adapters; None for full fine-tuning")
    only: tuple[str, ...] = Field(
        (), description="components that are trained, by TransformerLens's names: mlp.out, blocks.3.mlp.out; () for all"
    )
    freeze: tuple[str, ...] = Field((), description="components that keep their weights, likewise")
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="passed to TRL's config as they are: bf16, fsdp, deepspeed, gradient_checkpointing",
    )

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_steps >= self.steps:  # the first step of a warm-up has a learning rate of 0
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        return self

    @model_validator(mode="after")
    def _check_adapted(self) -> Self:
        if self.lora is not None and self.lora.targets != "all-linear" and (self.only or self.freeze):
            raise ValueError("`only` and `freeze` choose what is adapted, and go with lora targets 'all-linear' alone")
        return self


def training_work(
    settings: TrainingSettings,
    texts: Texts,
    response: float,
    *,
    unit: str,
    sequences: int,
    passes: int,
    references: int,
) -> Work:
    """What a training run takes.

    Full fine-tuning holds the model that it started from, a copy, its gradients and Adam's two means; adapters the
    first two, and little beside. Blocks that are computed once more (gradient checkpointing) hold about a tenth.

    Args:
        response: tokens of the longest response of a row.
        unit: what a row is, in the plural.
        sequences: texts of a row.
        passes: forward ones, a backward pass as two.
        references: further models in memory.
    """
    rows = settings.batch_size * settings.gradient_accumulation
    checkpointed = bool(settings.extra.get("gradient_checkpointing"))
    length = min(settings.max_length, texts.prompt + response)
    how = "all weights" if settings.lora is None else f"adapters of rank {settings.lora.rank}"
    return Work(
        f"{many(settings.steps, 'step')} of {rows} {unit} from {texts.train:,}; {how}",
        tokens=settings.steps * rows * sequences * length * (passes + checkpointed),
        models=5 + references if settings.lora is None else 2,
        held=settings.batch_size * sequences * settings.max_length,
        held_share=0.1 if checkpointed else 1,
        models_kept=1,
    )


def training_rows(
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Asked],
    columns: Mapping[str, str],
    max_length: int,
    *,
    chat: ChatFormat | None = None,
) -> Sequence[Mapping[str, Any]]:
    """Rows of prompt and response texts; prompts too long for the longest response beside them lose their left end.

    In a chat format rows of their messages, see `conversational_rows`.

    Args:
        columns: TRL column -> field of the instance, for the responses.

    TRL itself truncates only at the end of prompt + response, which would cut the response.
    """
    if not instances:
        raise InputError("there are no instances to train on")
    if chat is not None:
        return conversational_rows(tokenizer, chat, instances, columns, max_length)
    around, cut = Around.of(tokenizer), Cut()
    spelled = SpelledOut(tokenizer, around)
    rows = []
    for instance in instances:
        responses = {column: f" {getattr(instance, name)}" for column, name in columns.items()}
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in responses.values()]
        room = max_length - max(lengths) - 1  # 1 for the end token
        if room < 1:
            raise InputError(
                f"instance {instance.id}: a response of {max(lengths)} tokens leaves no room in {max_length}"
            )
        prompt = plain_text(instance.prompt, f"instance {instance.id}")
        ids = around.open_end(tokenizer(prompt, verbose=False)["input_ids"])
        for text in (prompt, *responses.values()):
            spelled.look(f"instance {instance.id}", text, tokenizer(text, verbose=False)["input_ids"])
        if len(ids) > room:
            front = around.in_front(ids)
            if room <= front:
                raise InputError(f"instance {instance.id}: its responses leave no room for its prompt in {max_length}")
            kept = keep_right(ids, room, front)
            cut.add(f"that of instance {instance.id}", kept, spelled.among(ids[front : front + len(ids) - room]))
            prompt = tokenizer.decode(kept[front:])  # what the tokenizer adds in front, it will add again
        rows.append({"prompt": prompt, **responses})
    cut.warn(len(rows), max_length)
    spelled.warn()
    return rows


def trl_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """A tokenizer for TRL, which gives one without a pad token its own; its template is the checkpoint's format."""
    if checkpoint.chat is not None:
        return checkpoint.chat.onto(checkpoint.tokenizer)
    return copy.deepcopy(checkpoint.tokenizer)


def trainer_arguments(settings: TrainingSettings, folder: str, *, seed: int, device: torch.device) -> dict[str, Any]:
    """The arguments every TRL config gets: no reports, no checkpoints of its own, nothing on the network."""
    return {
        "output_dir": folder,
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "max_length": settings.max_length,
        "seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
        **settings.extra,
    }


class _Follow(TrainerCallback):
    """Hands the trainer's progress to a callback instead of standard output."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)


def run_trainer(
    checkpoint: Checkpoint,
    make_trainer: Callable[[PreTrainedModel, str, Any], Any],
    settings: TrainingSettings,
    *,
    name: str,
    seed: int,
    progress: Progress | None,
    before_merge: Callable[[Any], None] | None = None,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Train a copy of a checkpoint's model with a TRL trainer.

    What `settings` freeze keeps its weights bit for bit.

    Args:
        make_trainer: (copy of the model, scratch folder, peft config or None) -> trainer.
        before_merge: shown the trained model with its adapters, before they are merged into its weights.

    Returns:
        The tuned checkpoint and the trainer's log, a row per step.

    Raises:
        InputError: for settings that TRL refuses, a component that the model has not, or a loss that is not finite.
    """
    from transformers.trainer_callback import PrinterCallback

    some = bool(settings.only or settings.freeze)
    trained = trained_parameters(checkpoint, only=settings.only, freeze=settings.freeze) if some else frozenset()
    adapted = linear_maps(checkpoint, trained) if some and settings.lora else None
    model = copy.deepcopy(checkpoint.model)
    forward = {name: value for name, value in vars(model).items() if name == "forward"}
    if some:
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter_name in trained)
    with tempfile.TemporaryDirectory() as folder, _own_randomness(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries, which a user cannot act on
        try:
            trainer = make_trainer(model, folder, _peft_config(settings.lora, adapted))
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: TRL refuses these settings ({' '.join(str(error).split())})") from error
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Follow(progress))
        trainer.train()
        tuned = trainer.model
        log = [row for row in trainer.state.log_history if "loss" in row]
    if bad := [row["step"] for row in log if not np.isfinite(row["loss"])]:
        raise InputError(f"{name}: the loss was not finite at step {bad[0]}; lower the learning rate")
    if settings.lora is not None:
        if before_merge is not None:
            before_merge(tuned)
        tuned = tuned.merge_and_unload()
    vars(tuned).pop("forward", None)  # TRL's own: a copy of the model would still run the weights of this one
    vars(tuned).update(forward)
    for before, after in zip(checkpoint.model.parameters(), tuned.parameters(), strict=True):
        after.requires_grad_(before.requires_grad)
    tuned.config.use_cache = checkpoint.model.config.use_cache
    return Checkpoint(
        name, tuned.eval(), checkpoint.tokenizer, f"{name} of {checkpoint.source}", chat=checkpoint.chat
    ), log


def _peft_config(lora: LoraSettings | None, adapted: Sequence[str] | None = None) -> Any:
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=adapted or ("all-linear" if lora.targets == "all-linear" else None),
        task_type="CAUSAL_LM",
    )


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed everything for the trainer, then put every global generator back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state is restored, not used
    with torch.random.fork_rng():
        try:
            set_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
