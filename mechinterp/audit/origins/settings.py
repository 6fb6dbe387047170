"""How origins are measured."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from mechinterp.audit.origins.groups import Grouping
from mechinterp.audit.readouts import ANSWER_TOKENS, READOUTS
from mechinterp.data.validation import UsersSettings
from mechinterp.errors import near


class OriginsSettings(UsersSettings):
    """How the origins of a change are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(32, ge=2, description="prompts that are read, first those that the base answers unsafely")
    tokens: int = Field(ANSWER_TOKENS, ge=1, description="first tokens of each answer that are read")
    nodes: int = Field(
        4, ge=1, description="of the quadrature along the path; each costs a forward and a backward pass"
    )
    most_nodes: int = Field(
        20,
        ge=0,
        description="spent at most where the path's sum is off the change by more than 2%: pieces of it are halved; "
        "below three times `nodes`: none is",
    )
    readouts: tuple[str, ...] = Field(("log_odds",), min_length=1, description="log_odds, unsafe_logprob")
    groups: Grouping = Field(
        "kinds", description="the five groups, attention split into q/k and v/o, or a group for each block"
    )
    game: Literal["auto", "always", "never"] = Field(
        "auto", description="also the exact game over groups; auto: where it takes about a minute of one core at most"
    )
    permutations: int = Field(32, ge=4, multiple_of=2, description="sampled where there are more than eight groups")
    top: int = Field(20, ge=1, description="neurons, and heads, that are listed")

    @field_validator("readouts")
    @classmethod
    def _check_readouts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in given if name not in READOUTS]:
            meant = near(unknown[0], READOUTS)
            raise ValueError(f"unknown read-out {unknown[0]!r}; known are {', '.join(READOUTS)}{meant}")
        return tuple(dict.fromkeys(given))
