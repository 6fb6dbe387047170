"""Relearning: a model fine-tuned in place for a few steps, looked at between them, and put back bit for bit.

    loss = mean over the response tokens of a batch, and the token that ends each answer, of -log p(token | before it)

by Adam at a constant rate and without warm-up, so that the first n steps of a run are a run of n steps: one run gives
every dose of a curve. `full` moves every weight; `lora` adds scale x B A to every linear map of the blocks, by hooks,
so that no weight is touched. Dropout is off. The batches follow from the seed and the number of lessons alone: models
that are compared are taught the same texts in the same order.

What comes back after so few steps can also be what the texts teach: beside it belongs a model that never knew it.

Memory, besides the model: `full` keeps its weights on the host, and on their devices a gradient and Adam's two means in
float32, for weights in half precision a float32 copy too, so that small steps are not lost to rounding. `lora` keeps
the adapters alone. Of a batch, the activations of `max_tokens` tokens at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from mechinterp.data.conversations import Prompt
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import InputError
from mechinterp.methods.training.trained_parameters import linear_maps, trained_parameters
from mechinterp.methods.training.wide_adam import WideAdam
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.gradients import gradients_of
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.passes.whole_answers import answers_as_tokens, ended
from mechinterp.models.text.batches import length_batches, pad, to_device
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import unembedded_at

How = Literal["lora", "full"]


@dataclass(frozen=True)
class Lesson:
    """What is taught: a prompt and the answer to it."""

    prompt: Prompt
    response: str


class RelearningSettings(UsersSettings):
    """How a model is fine-tuned in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[int, ...] = Field((1, 2, 5, 10, 25, 50, 100), min_length=1, description="after which it is looked at")
    batch_size: int = Field(8, ge=1, description="lessons of a step")
    learning_rate: float = Field(1e-4, gt=0, description="of all weights")
    adapter_learning_rate: float = Field(1e-3, gt=0, description="of adapters")
    rank: int = Field(16, ge=1, description="of adapters")
    alpha: float = Field(32.0, gt=0, description="adapters are scaled by alpha / rank")
    max_tokens: int = Field(2048, ge=1, description="padded tokens whose activations are held at a time")

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not all(step >= 1 for step in given) or list(given) != sorted(set(given)):
            raise ValueError(f"numbers of steps are at least 1 and each larger than the one before, got {list(given)}")
        return given


@contextmanager
def relearning(
    checkpoint: Checkpoint,
    lessons: Sequence[Lesson],
    how: How,
    *,
    seed: int,
    settings: RelearningSettings | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Iterator[Iterator[tuple[int, Checkpoint]]]:
    """Fine-tune a checkpoint's own model for the time of the context; afterwards it is what it was, bit for bit.

    Args:
        checkpoint: the model; within the context its weights change (`full`) or hooks stand on it (`lora`).
        lessons: fed in the checkpoint's format; every one once, in a seeded order, then again in another.
        how: every weight, or adapters.
        seed: of the order of the lessons and of the adapters' first factors.
        settings: doses, rates and sizes.
        truncate: cut prompts that exceed the context from the left instead of raising.
        progress: called with (steps done, steps in all).

    Returns:
        Doses, each trained when it is asked for: the number of steps, and the checkpoint as it is then, under a
        fingerprint of its own.

    Raises:
        InputError: for no lessons, one that is empty or too long, or a loss that is not finite.
    """
    settings = settings or RelearningSettings()
    texts = _with_end(checkpoint, lessons, truncate)
    batches = batches_of(len(texts), settings.batch_size, seed)
    learned = _full(checkpoint, settings) if how == "full" else _adapted(checkpoint, settings, seed)
    with evaluating(checkpoint.model), learned as optimiser:
        yield _doses(checkpoint, texts, batches, optimiser, settings, progress)


def _doses(
    checkpoint: Checkpoint,
    texts: Sequence[Encoded],
    batches: Iterator[list[int]],
    optimiser: WideAdam,
    settings: RelearningSettings,
    progress: Progress | None,
) -> Iterator[tuple[int, Checkpoint]]:
    done = 0
    for dose in settings.steps:
        while done < dose:
            loss = _backward(checkpoint, [texts[i] for i in next(batches)], settings.max_tokens)
            done += 1
            if not math.isfinite(loss):
                raise InputError(
                    f"{checkpoint.source}: the loss of relearning is not finite at step {done}; lower the learning rate"
                )
            optimiser.step()
            if progress is not None:
                progress(done, settings.steps[-1])
        yield dose, replace(checkpoint)  # the old one may remember the fingerprint it had


def _with_end(checkpoint: Checkpoint, lessons: Sequence[Lesson], truncate: bool) -> list[Encoded]:
    """The lessons as tokens, each with the token that ends an answer."""
    if not lessons:
        raise InputError("there are no lessons to relearn from")
    questions = [(lesson.prompt, lesson.response) for lesson in lessons]
    return ended(checkpoint, answers_as_tokens(checkpoint, questions, truncate=truncate, called="lesson"))


def batches_of(n: int, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of lessons, `size` at a time, from one random order of all of them after another."""
    generator, waiting = torch.Generator().manual_seed(seed), list[int]()
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(n, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]


def _backward(checkpoint: Checkpoint, texts: Sequence[Encoded], max_tokens: int) -> float:
    """The loss of a batch, whose gradients are left at the parameters; in parts, which changes nothing but rounding."""
    counted = sum(len(text.ids) - text.prompt_length for text in texts)
    total = 0.0
    for order in length_batches([len(text.ids) for text in texts], max_tokens, apart=checkpoint.names.short_context):
        part = [texts[i] for i in order]
        with torch.enable_grad():
            loss = _surprise(checkpoint, part) / counted
            loss.backward()
        total += float(loss.detach())
    return total


def _surprise(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> Float[Tensor, ""]:
    """Minus the log-probability of all response tokens of some texts, summed in float32 or better."""
    batch = pad(texts, pad_id=checkpoint.padding_id, device=checkpoint.device)
    rows, columns, labels = zip(
        *((row, at - 1, text.ids[at]) for row, text in enumerate(texts) for at in text.positions("response")),
        strict=True,
    )
    with reading(batch), unembedded_at(checkpoint, rows, columns, batch.input_ids.shape[1]):
        logits = checkpoint.model(**batch.inputs(), use_cache=False).logits[0]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(wide, to_device(torch.tensor(labels), wide.device), reduction="sum")


@contextmanager
def _full(checkpoint: Checkpoint, settings: RelearningSettings) -> Iterator[WideAdam]:
    """Every weight is trained; at the end each is what it was, from a copy on the host."""
    parameters = [parameter for parameter in checkpoint.model.parameters() if parameter.is_floating_point()]
    kept = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    try:
        with gradients_of(checkpoint.model):
            yield WideAdam(parameters, settings.learning_rate)
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


@contextmanager
def _adapted(checkpoint: Checkpoint, settings: RelearningSettings, seed: int) -> Iterator[WideAdam]:
    """Adapters on every linear map of the blocks, as hooks on their outputs.

    Their first factors are peft's: A uniform within 1 / sqrt(d_in), B zero. peft itself would put modules of its own in
    the place of the model's.
    """
    generator = torch.Generator().manual_seed(seed)
    factors: list[Tensor] = []
    with gradients_of(checkpoint.model, ()), ExitStack() as hooks:
        for path in linear_maps(checkpoint, trained_parameters(checkpoint)):
            module = checkpoint.model.get_submodule(path)
            weight = checkpoint.parameter(f"{path}.weight")
            d_out, d_in = weight.shape if isinstance(module, nn.Linear) else weight.T.shape  # GPT-2 stores [in, out]
            kind = torch.promote_types(weight.dtype, torch.float32)
            drawn = (2 * torch.rand(settings.rank, d_in, generator=generator) - 1) / d_in**0.5
            A, B = drawn.to(weight.device, kind), torch.zeros(d_out, settings.rank, dtype=kind, device=weight.device)
            factors += [A.requires_grad_(), B.requires_grad_()]
            hooks.callback(module.register_forward_hook(_low_rank(A, B, settings.alpha / settings.rank)).remove)
        yield WideAdam(factors, settings.adapter_learning_rate)


def _low_rank(A: Float[Tensor, "rank d_in"], B: Float[Tensor, "d_out rank"], scale: float) -> Any:
    def add(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return (output + (scale * (args[0].to(A) @ A.T @ B.T)).to(output.device)).to(output.dtype)

    return add
