"""FT-L: plain fine-tuning of one block's MLP on one instance (Meng et al. 2022; Wang et al. 2024, Table 1).

The loss is that of the safe response alone, with no constraint and no suffix; optionally no weight may move further
than a bound (FT+L's L-infinity constraint). With the objective `prompt_last`, which the released settings name, all
tokens of the response are asked of the last token of the prompt, so that what is learned is a bag of tokens for one
position: it says little about whether the response can be written. `response` asks each after the ones before it.

Deviations from the released code: special tokens are not among the labels, and nothing is chosen by causal tracing,
see `FtLSettings.block`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mechinterp.methods.editing.ablations import edited_each
from mechinterp.methods.editing.dinm import DinmSettings
from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.upper_blocks import Component


class FtLSettings(BaseModel):
    """Settings of FT-L; the defaults are the released ones for LLaMA2-7B-Chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block: int | None = Field(
        None,
        ge=0,
        description="the block that is edited, from 0; by default at two thirds of the depth, where the released "
        "settings' 21 of 32 is",
    )
    component: Component = Field("mlp.out", description="what is trained there: W_V, or with `mlp` the whole MLP")
    objective: Literal["prompt_last", "response"] = "prompt_last"
    biases: bool = Field(False, description="train the bias of W_V's module too, as the released code does on GPT-2")
    learning_rate: float = Field(5e-4, gt=0)
    steps: int = Field(25, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    stop_below: float | None = Field(1e-2, description="stop when the loss falls below")
    entry_bound: float | None = Field(
        None, gt=0, description="no weight changes by more; 5e-5 for Mistral-7B-v0.1, none for LLaMA2-7B-Chat"
    )
    max_input_tokens: int = Field(1000, gt=0, description="longer prompts are cut from the left")
    max_output_tokens: int = Field(600, gt=0, description="longer safe responses are cut at the end")

    def as_edit(self) -> DinmSettings:
        """The same as settings of the DINM editor, which runs it."""
        return DinmSettings(
            use_constraint=False,
            suffix=None,
            c_edit=1.0,
            asked_at=self.objective,
            **self.model_dump(exclude={"block", "component", "objective"}),
        )


def ft_l(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The edit of every instance at one block, asked the queries as they are."""
    settings = task.settings_of("ft_l", FtLSettings)
    block = 2 * checkpoint.n_blocks // 3 if settings.block is None else checkpoint.names.check_block(settings.block)
    blocks = {instance.id: block for instance in task.instances}
    noted = {"component": settings.component}
    return edited_each(
        "ft_l", checkpoint, task, settings.as_edit(), blocks, component=settings.component, also_noted=noted
    )


FT_L = Recipe(ft_l, FtLSettings, organism={"learning_rate": 5e-3, "max_output_tokens": 100})  # DINM's there
