"""How circuits are found, run and compared."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from mechinterp.audit.circuits.acdc import NO_MEAN
from mechinterp.audit.circuits.faithfulness import RANDOM
from mechinterp.audit.circuits.running import Replacement
from mechinterp.audit.circuits.scoring import STEPS
from mechinterp.data.validation import UsersSettings


class CircuitSettings(UsersSettings):
    """How circuits are found, run and compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int = Field(32, ge=1, description="pairs of prompts at most")
    tokens: int = Field(5, ge=1, description="first tokens of unsafe, and of safe, answers that are read, at most")
    steps: int = Field(STEPS, ge=1, description="of the integration; 1: attribution patching on the clean prompt alone")
    share: float = Field(0.05, gt=0, le=1, description="of all edges: the circuit that nodes and strength are of")
    shares: tuple[float, ...] = Field(
        (0.01, 0.05, 0.1), description="of all edges: the circuits that are run alone, beside random ones"
    )
    random: int = Field(RANDOM, ge=0, description="random circuits of each size")
    replace: Replacement = Field(
        "corrupted",
        description="what edges outside a circuit carry: corrupted, mean (of pairs held out for it), or zero",
    )
    search: Literal["eap", "acdc"] = Field(
        "eap", description="acdc: search a circuit by cutting one edge after the other too; a pass an edge"
    )
    acdc_threshold: float = Field(0.02, gt=0, description="how much worse the answer must get for an edge to be kept")
    released: bool = Field(False, description="acdc as the released code does it, see audit.circuits.acdc")
    final_scale: bool = Field(
        False, description="the stream’s probabilities over depth with the last stream’s scale, as the released code"
    )
    top: int = Field(30, ge=1, description="edges, and nodes, of each checkpoint that are listed")

    @field_validator("search")
    @classmethod
    def _check_search(cls, given: str, info: ValidationInfo) -> str:
        if given == "acdc" and info.data.get("replace") == "mean":
            raise ValueError(NO_MEAN)
        return given

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not given or any(not 0 < share <= 1 for share in given):
            raise ValueError(f"shares of the edges must be above 0 and at most 1, got {given}")
        return tuple(sorted(set(given)))
