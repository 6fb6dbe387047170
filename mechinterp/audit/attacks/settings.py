"""Which attacks are made, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mechinterp.audit.attacks.registry import ATTACKS, CHEAP, find_attack
from mechinterp.data.validation import Fault, UsersSettings
from mechinterp.errors import InputError, near

GROUPS: Mapping[str, tuple[str, ...]] = {"all": tuple(ATTACKS), "cheap": CHEAP, "none": ()}


class AttackSettings(UsersSettings):
    """Which attacks are made, on what, and their own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attacks: tuple[str, ...] = Field(CHEAP, description="names in the registry, or cheap, all or none")
    prompts: int = Field(40, ge=2, description="adversarial prompts that the base answers unsafely")
    losses: tuple[float, ...] = Field(
        (0.0, 0.05, 0.1, 1.0), description="shares of knowledge that the worst attack may cost, each a row of worst.csv"
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of single attacks, by name: `quantise: {bits: [4]}`"
    )

    @field_validator("attacks", mode="before")
    @classmethod
    def _named_group(cls, given: Any) -> Any:
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            return given
        return tuple(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))

    @field_validator("attacks")
    @classmethod
    def _check_attacks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        known = (*ATTACKS, *GROUPS)
        if unknown := [name for name in given if name not in ATTACKS]:
            raise ValueError(f"unknown attack {unknown[0]!r}; known are {', '.join(known)}{near(unknown[0], known)}")
        return tuple(name for name in ATTACKS if name in given)

    @field_validator("losses")
    @classmethod
    def _check_losses(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= loss <= 1 for loss in given):
            raise ValueError(f"shares of knowledge lie between 0 and 1, got {list(given)}")
        return tuple(sorted(set(given)))

    @field_validator("options")
    @classmethod
    def _check_options(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, own in given.items():
            try:
                checked_options(name, own)
            except InputError as error:
                raise ValueError(f"{name}: {error}" if name in ATTACKS else str(error)) from error
        return given

    def options_of(self, name: str) -> BaseModel:
        """The settings of an attack."""
        return checked_options(name, self.options.get(name, {}))


def checked_options(name: str, given: Mapping[str, Any]) -> BaseModel:
    """An attack's settings from what a user wrote.

    Raises:
        InputError: for an unknown attack, or a setting that is unknown or out of range; it names the setting.
    """
    kind = find_attack(name).options
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        fault = Fault.of(error)
        meant = near(fault.where, kind.model_fields) if fault.kind == "extra_forbidden" else ""
        raise InputError(f"`{fault.where}`: {fault.told}{meant}") from error
