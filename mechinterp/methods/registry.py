"""Every way to detoxify by its name, as configs and the command line give it.

All have one signature, `task.Way`; what they are given and what they give back is in `task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from mechinterp.errors import InputError
from mechinterp.methods.editing.ablations import (
    AtBlockSettings,
    dinm,
    dinm_at_block,
    dinm_batch,
    dinm_sequential,
    dinm_wo_constraint,
    dinm_wo_location,
    dinm_wo_suffix,
    suffix_only,
    vanilla,
)
from mechinterp.methods.editing.dinm import DinmSettings
from mechinterp.methods.editing.ft_l import FtLSettings, ft_l
from mechinterp.methods.self_reminder import SelfReminderSettings, self_reminder
from mechinterp.methods.task import NoSettings, Way, checked_settings
from mechinterp.methods.training.dpo import DpoSettings, dpo
from mechinterp.methods.training.ext_sub import ExtSubSettings, ext_sub
from mechinterp.methods.training.sft import SftSettings, sft


@dataclass(frozen=True)
class Description:
    """What a way is, in a line.

    Attributes:
        name: as configs give it.
        line: what it does.
        per_instance: every instance has a treatment of its own; otherwise there is one for all.
        suffix: queries are asked with the suffix of dinm's settings.
        settings: what its own settings are; `NoSettings` where it has none (of DINM's variants, dinm's are used).
    """

    name: str
    line: str
    per_instance: bool = False
    suffix: bool = False
    settings: type[BaseModel] = NoSettings


_ENTRIES: tuple[tuple[Way, Description], ...] = (
    (vanilla, Description("vanilla", "the model as it is")),
    (suffix_only, Description("suffix", "the model as it is, the suffix after every query", suffix=True)),
    (sft, Description("sft", "fine-tuned on prompts and their safe responses", settings=SftSettings)),
    (dpo, Description("dpo", "from sft, tuned to prefer safe to unsafe responses", settings=DpoSettings)),
    (
        self_reminder,
        Description("self_reminder", "a reminder before and after every query", settings=SelfReminderSettings),
    ),
    (
        ext_sub,
        Description("ext_sub", "an expert's change less what an anti-expert learned", settings=ExtSubSettings),
    ),
    (ft_l, Description("ft_l", "one block's MLP fine-tuned on one instance", per_instance=True, settings=FtLSettings)),
    (dinm, Description("dinm", "W_V edited at the toxic layer", True, True, DinmSettings)),
    (dinm_wo_suffix, Description("dinm_wo_suffix", "dinm, trained and asked without the suffix", True)),
    (dinm_wo_constraint, Description("dinm_wo_constraint", "dinm without the knowledge constraint", True, True)),
    (dinm_wo_location, Description("dinm_wo_location", "dinm at a block drawn at random", True, True)),
    (
        partial(suffix_only, method="dinm_wo_tune"),
        Description("dinm_wo_tune", "dinm without the edit: the suffix alone", suffix=True),
    ),
    (dinm_at_block, Description("dinm_at_block", "dinm at one given block", True, True, AtBlockSettings)),
    (dinm_batch, Description("dinm_batch", "one edit for all instances together", suffix=True)),
    (dinm_sequential, Description("dinm_sequential", "edit on top of edit, instance after instance", suffix=True)),
)

WAYS: Mapping[str, Way] = {description.name: way for way, description in _ENTRIES}
SETTINGS: Mapping[str, type[BaseModel]] = {description.name: description.settings for _, description in _ENTRIES}


def find_way(name: str) -> Way:
    """The way of that name.

    Raises:
        InputError: if there is none, with the known ones.
    """
    _check_known(name)
    return WAYS[name]


def settings_for(name: str, given: Mapping[str, Any]) -> BaseModel:
    """A way's settings from what a user wrote; they go into `Task.settings` under its name.

    Raises:
        InputError: for an unknown way, or a setting that is unknown, missing or out of range; it names the setting.
    """
    _check_known(name)
    return checked_settings(name, SETTINGS[name], given)


def describe() -> tuple[Description, ...]:
    """Every way, in the order in which tables show them."""
    return tuple(description for _, description in _ENTRIES)


def _check_known(name: str) -> None:
    if name not in WAYS:
        raise InputError(f"unknown method {name!r}; known are {', '.join(WAYS)}")
