"""Settings of the editors of facts, with EasyEdit's values for two families of architectures.

The classes' own defaults are those for Llama-2-7B, which EasyEdit uses for Mistral and Qwen as well; GPT-2's differ
(`family_defaults`). Where no blocks are given, an edit is at the depth, as a share, at which these settings edit the
published model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mechinterp.errors import InputError, near
from mechinterp.methods.editing.ft_l import FtLSettings
from mechinterp.methods.facts.requests import FactToken
from mechinterp.methods.task import checked_settings
from mechinterp.models.checkpoints import Checkpoint


class ValueSettings(BaseModel):
    """What the search for a value is given, see `facts.value`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    blocks: tuple[int, ...] | None = Field(
        None, min_length=1, description="the edited blocks, from 0; by default at the published model's depth"
    )
    fact_token: FactToken = Field(
        "subject_last",
        description="where the edit acts: the subject's last token, or (`last`) the prompt's, for texts without one",
    )
    steps: int = Field(25, ge=1, le=10_000, description="most evaluations of the loss")
    learning_rate: float = Field(0.5, gt=0, le=1e30)
    weight_decay: float = Field(1e-3, ge=0, le=1e6)
    clamp: float = Field(4.0, gt=0, le=1e6, description="largest norm of delta, relative to what stands there")
    kl_factor: float = Field(0.0625, ge=0, le=1e6)
    stop_below: float = Field(0.05, description="stop when the loss falls below")
    context_lengths: tuple[tuple[int, int], ...] = Field(
        ((5, 10), (10, 10)), description="(tokens, texts) of the contexts that the model writes itself"
    )
    max_output_tokens: int = Field(600, gt=0, description="longer targets are cut at the end")

    @property
    def edited(self) -> tuple[int, ...]:
        """The blocks that are named."""
        return self.blocks or ()


class RomeSettings(ValueSettings):
    """Settings of ROME."""

    use_moments: bool = Field(
        False, description="turn the key by the inverse of the second moments, as in the paper; off in EasyEdit"
    )


class MemitSettings(ValueSettings):
    """Settings of MEMIT."""

    context_lengths: tuple[tuple[int, int], ...] = Field(
        ((10, 5),), description="(tokens, texts) of the contexts that the model writes itself"
    )
    moments_weight: float = Field(15_000.0, gt=0, description="of the second moments: how much other keys count")


class AlphaEditSettings(ValueSettings):
    """Settings of AlphaEdit."""

    learning_rate: float = Field(0.1, gt=0, le=1e30)
    weight_decay: float = Field(0.5, ge=0, le=1e6)
    clamp: float = Field(0.75, gt=0, le=1e6)
    context_lengths: tuple[tuple[int, int], ...] = Field(
        ((10, 5),), description="(tokens, texts) of the contexts that the model writes itself"
    )
    null_threshold: float = Field(0.02, gt=0, description="directions of the keys below it are free to be changed")
    ridge: float = Field(1.0, gt=0, description="weight of the change's own size")


class FtMSettings(FtLSettings):
    """Settings of FT-M: each token of the target is asked after the ones before it."""

    objective: Literal["prompt_last", "response"] = "response"
    biases: bool = Field(True, description="train the bias of W_V's module too, where it has one, as EasyEdit does")


EditorSettings = RomeSettings | MemitSettings | AlphaEditSettings | FtMSettings

_PUBLISHED: Mapping[str, Mapping[str, tuple[float, float, Mapping[str, Any]]]] = {
    "gpt2": {  # GPT2-XL: the first and the last block, as shares of 48
        "rome": (17 / 48, 17 / 48, {"steps": 20, "weight_decay": 0.5}),
        "memit": (13 / 48, 17 / 48, {"steps": 20, "weight_decay": 0.5, "clamp": 0.75, "moments_weight": 20_000.0}),
        "alphaedit": (13 / 48, 17 / 48, {"steps": 20}),
        "ft_m": (0, 0, {"entry_bound": 5e-4}),
    },
    "llama": {  # Llama-2-7B: of 32
        "rome": (5 / 32, 5 / 32, {}),
        "memit": (4 / 32, 8 / 32, {}),
        "alphaedit": (4 / 32, 8 / 32, {}),
        "ft_m": (21 / 32, 21 / 32, {}),
    },
}

_KINDS: Mapping[str, type[EditorSettings]] = {
    "rome": RomeSettings,
    "memit": MemitSettings,
    "alphaedit": AlphaEditSettings,
    "ft_m": FtMSettings,
}


Settings = TypeVar("Settings", bound=ValueSettings)


def family_of(model_type: str) -> str:
    """Whose defaults an architecture takes: `gpt2` for the GPTs, `llama` for all others."""
    return "gpt2" if model_type.startswith("gpt") else "llama"


def default_settings(method: str, checkpoint: Checkpoint, given: Mapping[str, Any] | None = None) -> EditorSettings:
    """The settings of a method for an architecture, blocks and all.

    Args:
        method: `rome`, `memit`, `alphaedit` or `ft_m`.
        checkpoint: whose architecture and depth count.
        given: what is not left to the defaults.

    Raises:
        InputError: for an unknown method, or a setting that is unknown or out of range, which the message names.
    """
    if method not in _KINDS:
        raise InputError(f"unknown method {method!r}; known are {', '.join(_KINDS)}{near(method, _KINDS)}")
    first, last, values = _PUBLISHED[family_of(checkpoint.model.config.model_type)][method]
    given = {**values, **(given or {})}
    name = "block" if method == "ft_m" else "blocks"
    if given.get(name) is None:
        low, high = (min(checkpoint.n_blocks - 1, round(share * checkpoint.n_blocks)) for share in (first, last))
        given[name] = low if method == "ft_m" else tuple(range(low, high + 1))
    return checked_settings(method, _KINDS[method], given)


def chosen_settings(
    method: str, checkpoint: Checkpoint, settings: Settings | None, kind: type[Settings]
) -> tuple[Settings, tuple[int, ...]]:
    """Settings as given, or the family's; and the blocks, in their order, which the model has.

    Raises:
        InputError: for a block out of range, or one without a single value matrix.
    """
    own = default_settings(method, checkpoint)
    assert isinstance(own, kind)
    found = own if settings is None else settings
    blocks = tuple(sorted(set(found.blocks or own.blocks or ())))
    for block in blocks:
        checkpoint.names.value_parameter(checkpoint.names.check_block(block))
    return found.model_copy(update={"blocks": blocks}), blocks
