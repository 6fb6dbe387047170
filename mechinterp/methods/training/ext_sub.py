"""Ext-Sub: what an anti-expert learned is taken from what an expert learned (Hu et al. 2023, arXiv 2308.08090).

Two low-rank adapters are trained on the same prompts, the expert on the safe, the anti-expert on the unsafe responses.
With D+ and D- the changes B A alpha/r they make to a weight matrix, per output row

    u  = normalised(D+ / |D+| + D- / |D-|)          the direction that they share
    D  = D+ - strength (D- - (D- . u) u)            only what the anti-expert does not share is removed

so that the skill of answering at all, which both learned, stays. `combination="subtract"` removes D- whole. Every row
of D lies in the span of the two adapters' rows: the rank of the change is at most twice theirs.

That D makes a model safer does not show that D- held its toxicity: the two differ in style and wording too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import LoraSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

_OPPOSITE = 1e-6  # two unit rows whose sum is no longer than this share no direction


class AdapterSettings(LoraSettings):
    """Settings of the two adapters; what is adapted is peft's choice, as in the method's own code."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Literal["all-linear", "usual"] = "usual"


class ExtSubSettings(SftSettings):
    """Settings of Ext-Sub; the defaults are its own code's, in steps of SafeEdit's 4,050 training instances.

    64 steps of 8 x 16 examples are its two epochs in batches of 128, 2 of them its 3% of warm-up.
    """

    steps: int = Field(64, ge=1, description="optimiser steps of each of the two")
    gradient_accumulation: int = Field(16, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    warmup_steps: int = Field(2, ge=0)
    max_length: int = Field(1024, ge=2, description="tokens of prompt + response; prompts are cut from the left")
    lora: AdapterSettings = AdapterSettings()
    combination: Literal["extract", "subtract"] = Field(
        "extract", description="`extract`: keep what the anti-expert shares with the expert; `subtract`: remove all"
    )
    strength: float = Field(1.0, ge=0, description="how much of it is removed; the method's alpha")


@dataclass(frozen=True)
class LowRankChange:
    """What one adapter changes in one weight matrix: scale x B A.

    Attributes:
        A, B: the adapter's factors, float32, on the CPU.
        scale: alpha / r.
        transposed: the model stores the matrix as [d_in, d_out], as GPT-2 does.
    """

    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"]
    scale: float
    transposed: bool

    def product(self) -> Float[Tensor, "d_out d_in"]:
        """The change, a row per output."""
        return self.scale * (self.B @ self.A)

    def as_stored(self, change: Float[Tensor, "d_out d_in"]) -> Tensor:
        """A change of the same matrix in the model's own orientation."""
        return change.T if self.transposed else change


def ext_sub(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One change of the weights for all of the task's instances, from its training instances."""
    settings = task.settings_of("ext_sub", ExtSubSettings)
    expert = _trained(checkpoint, task, settings, "expert", "safe")
    anti_expert = _trained(checkpoint, task, settings, "anti-expert", "unsafe")
    delta = combined(checkpoint, expert, anti_expert, task.training, settings)
    yield Treatment("ext_sub", tuple(task.instances), delta=delta)


def _trained(
    checkpoint: Checkpoint,
    task: Task,
    settings: ExtSubSettings,
    who: str,
    response: Literal["safe", "unsafe"],
) -> dict[str, LowRankChange]:
    """What an adapter changes that was trained on one of the responses; of the model only that is kept."""
    found: dict[str, LowRankChange] = {}

    def keep(model: Any) -> None:
        found.update(low_rank_changes(model))

    task.note(f"ext_sub: training the {who} on {many(len(task.training), 'instance')}, {many(settings.steps, 'step')}")
    train_sft(
        checkpoint,
        task.training,
        seed=task.seed,
        settings=settings,
        name=f"ext_sub ({who})",
        response=response,
        before_merge=keep,
    )
    return found


def combined(
    checkpoint: Checkpoint,
    expert: Mapping[str, LowRankChange],
    anti_expert: Mapping[str, LowRankChange],
    training: Sequence[AnyPair],
    settings: ExtSubSettings,
) -> WeightDelta:
    """The two adapters' changes as one, a matrix at a time."""
    tensors = {}
    for name, positive in expert.items():
        change = combine(positive.product(), anti_expert[name].product(), settings.strength, settings.combination)
        tensors[name] = positive.as_stored(change).contiguous()
    blocks = sorted({b for name in tensors if (b := checkpoint.names.component(name)[0]) is not None})
    return WeightDelta(
        tensors=tensors,
        block=blocks[0],
        also=tuple(blocks[1:]),
        instance=training[0].id,
        instances=tuple(instance.id for instance in training),
        settings=settings.model_dump(),
        fingerprint=checkpoint.fingerprint,
        tokenizer=checkpoint.tokenizer_fingerprint,
    )


def combine(
    expert: Float[Tensor, "d_out d_in"],
    anti_expert: Float[Tensor, "d_out d_in"],
    strength: float = 1.0,
    combination: Literal["extract", "subtract"] = "extract",
) -> Float[Tensor, "d_out d_in"]:
    """D of the module's text; a row that is zero on one side, or opposite on both, shares nothing."""
    if expert.shape != anti_expert.shape:
        raise ValueError(f"two changes of one matrix, got {tuple(expert.shape)} and {tuple(anti_expert.shape)}")
    removed = anti_expert
    if combination == "extract":
        u = _units(_units(expert) + _units(anti_expert), shortest=_OPPOSITE)
        u = u * ((expert != 0).any(1, keepdim=True) & (anti_expert != 0).any(1, keepdim=True))
        removed = anti_expert - (anti_expert * u).sum(1, keepdim=True) * u
    return expert - strength * removed


def _units(rows: Float[Tensor, "d_out d_in"], shortest: float = 0.0) -> Float[Tensor, "d_out d_in"]:
    """Every row over its length; zero where it is not longer than `shortest`."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(lengths > shortest, rows / lengths.clamp_min(torch.finfo(rows.dtype).tiny), 0.0)


def low_rank_changes(model: Any) -> dict[str, LowRankChange]:
    """The changes that a peft model's adapters make, by the names that their parameters have in the model below."""
    from peft.tuners.lora import LoraLayer

    below = model.get_base_model()
    found = {}
    for path, module in below.named_modules():
        if isinstance(module, LoraLayer):
            (adapter,) = module.active_adapters
            found[f"{path}.weight"] = LowRankChange(
                A=module.lora_A[adapter].weight.detach().float().cpu(),
                B=module.lora_B[adapter].weight.detach().float().cpu(),
                scale=float(module.scaling[adapter]),
                transposed=not isinstance(module.get_base_layer(), nn.Linear),
            )
    return found


EXT_SUB = Recipe(
    ext_sub,
    ExtSubSettings,
    responses=("safe", "unsafe"),
    organism={  # ten times SFT's learning rate, for adapters
        "steps": 60,
        "batch_size": 8,
        "gradient_accumulation": 1,
        "warmup_steps": 0,
        "learning_rate": 3e-3,
        "max_length": 256,
    },
)
