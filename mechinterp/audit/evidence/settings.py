"""What a comparison measures, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import ConfigDict, Field

from mechinterp.data.validation import UsersSettings
from mechinterp.models.passes.positions import Span
from mechinterp.models.text.tokens import Position

Text = Literal["fixed", "on_policy"]
TEXTS: tuple[Text, ...] = get_args(Text)


@dataclass(frozen=True)
class Place:
    """Where writes are measured.

    Attributes:
        name: in tables.
        position: the token positions recorded there.
        steered_at: where steering is tried, to see whether a direction is in play there.
        text: `fixed`, the same tokens for every checkpoint, or `on_policy`, each one's own.
    """

    name: str
    position: Position
    steered_at: Span
    text: Text = "fixed"


PLACES = (Place("prompt_last", "last", "prompt_last"), Place("response", "response", "response"))
"""Where writes are always measured."""


class ComparisonSettings(UsersSettings):
    """How a comparison is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(
        32, ge=1, description="of the answers that decide which prompts the base answers unsafely"
    )
    steering_inputs: int = Field(60, ge=1, description="prompts on which steering is tried")
    steering_scale: float = Field(
        0.5,
        gt=0,
        description="length of the steering vector, in mean lengths of the residual stream where it is added",
    )
    middle_inputs: int = Field(30, ge=2, description="inputs of the middle-stream figure")
    top_neurons: int = Field(10, ge=0, description="neurons listed per method, direction and position")
    top_vectors: int = Field(128, ge=1, description="value vectors listed per direction and ranking")
    vector_tokens: int = Field(10, ge=0, description="tokens shown of each of them, at either end; 0 for none")
    null_draws: int = Field(100, ge=2, description="random directions that shares of neurons are set against")
    first_tokens: int = Field(
        20, ge=0, description="greedy tokens over which the activations of top value vectors are followed; 0 for none"
    )
    lens_tokens: int = Field(
        5, ge=0, description="first tokens of unsafe and of safe answers that the logit lens follows; 0 for no lens"
    )
    per_prompt: int = Field(
        0,
        ge=0,
        description="also decompose along a direction of each prompt's own: the first token of its unsafe answer less "
        "the mean of so many alternatives; 0 for none. Base and tuned are then in memory together",
    )
    generated: int = Field(0, ge=0, description="greedy tokens after the prompt that are measured too; 0 for none")
    text: Literal["fixed", "on_policy", "both"] = Field(
        "fixed", description="whose greedy tokens those are: the base's for all, each checkpoint's own, or both, apart"
    )

    @property
    def places(self) -> tuple[Place, ...]:
        """Where writes are measured."""
        if not self.generated:
            return PLACES
        position = f"generated:{self.generated}"
        texts = TEXTS if self.text == "both" else (self.text,)
        names = {"fixed": position, "on_policy": f"{position}:on_policy"}
        return (*PLACES, *(Place(names[text], position, "response", text) for text in texts))
