"""What all methods of unlearning can be told; each has its own settings besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AdapterSettings(BaseModel):
    """Low-rank adapters on the blocks' linear maps, merged into the weights at the end; trained without dropout."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)


class UnlearningSettings(BaseModel):
    """Settings of a run of unlearning; the defaults are those of KnowUnDo's baselines on its privacy set.

    128 steps of 8 answers of each kind are its 2 epochs in batches of 16, 4 steps its 3% of warm-up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(128, ge=1, description="optimiser steps")
    batch_size: int = Field(8, ge=1, description="answers of a step, of those to forget and of those to keep each")
    learning_rate: float = Field(5e-5, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(4, ge=0, description="steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0)
    largest_norm: float | None = Field(1.0, gt=0, description="to which the gradient is cut; None for no cut")
    max_length: int = Field(1600, ge=2, description="tokens of prompt + answer; prompts are cut from the left")
    max_tokens: int = Field(2048, ge=1, description="padded tokens whose activations are held at a time")
    separator: str | None = Field(
        None, description="between prompt and answer, and part of the answer, as in KnowUnDo; None: as texts are fed"
    )
    lora: AdapterSettings | None = Field(None, description="new adapters; None to train the weights themselves")
    adapter: str | None = Field(
        None, description="folder of an adapter on the model: its factors are trained, then merged into the weights"
    )
    only: tuple[str, ...] = Field((), description="components that are trained, by TransformerLens's names; () for all")
    freeze: tuple[str, ...] = Field((), description="components that keep their weights, likewise")

    @model_validator(mode="before")
    @classmethod
    def _shorten_warmup(cls, given: Any) -> Any:
        """A run that is shorter than the warm-up, of which nothing is said, has a shorter one."""
        steps = given.get("steps") if isinstance(given, Mapping) else None
        if isinstance(steps, int) and steps > 0 and "warmup_steps" not in given:
            usual = cls.model_fields["warmup_steps"].default
            return {**given, "warmup_steps": min(usual, steps - 1)}
        return given

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps}); lower it too")
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> Self:
        if self.lora is not None and self.adapter is not None:
            raise ValueError("`lora` makes new adapters and `adapter` trains those of a folder; give one of the two")
        return self
