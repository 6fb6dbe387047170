"""Settings of an edit: the published method, the released code's deviations from it, and what lies beyond both."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mechinterp.data.safeedit import SUFFIX


class DinmSettings(BaseModel):
    """Settings of an edit; the defaults are those published for LLaMA2-7B-Chat."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    constraint: Literal["published", "released"] = Field(
        "published",
        description="`published`: L_c has a gradient. `released`: it has none and only enters the stop test; also the "
        "released code's tokenisation (two spaces before Y_safe, special tokens before it and before the answer, L_c "
        "over the last positions of the pair) and, where W_V's module has a bias, the bias is trained too",
    )
    kl_direction: Literal["edited||base", "base||edited"] | None = Field(
        None, description="order in L_c; by default edited||base as Eq. 9 for `published`, base||edited for `released`"
    )
    # The largest values are those at which the optimisers' own products still fit into float32.
    learning_rate: float = Field(5e-4, gt=0, le=1e30, description="5e-4 for LLaMA2-7B-Chat, 1e-5 for Mistral-7B-v0.1")
    steps: int = Field(10, ge=0)
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    c_edit: float = Field(0.1, ge=0)
    weight_decay: float = Field(0.0, ge=0, le=1e6)
    suffix: str | None = Field(SUFFIX, description="S; None for the ablation wo/SyPrompt")
    use_constraint: bool = Field(True, description="False for the ablation wo/Constraint")
    stop_below: float | None = Field(None, description="stop when L falls below; 1e-4 for `released` if not given")
    stop_at_accuracy: float | None = Field(
        None, gt=0, le=1, description="stop when this share of Y_safe's tokens is the most probable one"
    )
    norm_bound: float | None = Field(
        None, gt=0, description="the change is scaled back to this Frobenius norm, relative to that of the weights"
    )
    entry_bound: float | None = Field(None, gt=0, description="no entry changes by more, as in FT+L's L-infinity bound")
    asked_at: Literal["response", "prompt_last"] = Field(
        "response",
        description="where L_e asks for the tokens of Y_safe: each after the ones before it, or all of them of the "
        "last token of [X; S], as the released FT-L does",
    )
    biases: bool | None = Field(
        None, description="train the bias of W_V's module too, where it has one; by default with `released` alone"
    )
    max_input_tokens: int = Field(
        1000, gt=0, description="longer prompts are cut from the left; not used by `released`, which cuts nothing"
    )
    max_output_tokens: int = Field(
        600,
        gt=0,
        description="longer safe responses and answers are cut at the end; not used by `released`, which cuts nothing",
    )

    @property
    def released(self) -> bool:
        """Whether the released code's deviations are on."""
        return self.constraint == "released"

    @property
    def with_biases(self) -> bool:
        """Whether a bias of the matrix is trained: released code chooses parameters by substring, so it is among
        them."""
        return self.released if self.biases is None else self.biases

    @property
    def stop_test(self) -> float | None:
        """The total loss below which an edit ends."""
        return 1e-4 if self.stop_below is None and self.released else self.stop_below


class RateChoice(BaseModel):
    """How a study chooses the learning rate of its edits: by trying each on validation instances."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rates: tuple[Annotated[float, Field(gt=0, le=1e30)], ...] = Field(
        (5e-4, 2e-3, 8e-3), min_length=2, description="those that are tried; the others of dinm's settings stay"
    )
    instances: int = Field(4, ge=1, description="validation instances edited with each, spread over the categories")
    questions: int = Field(6, ge=0, description="knowledge questions asked of each edit, none that `defend` asks")
