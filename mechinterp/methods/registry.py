"""Every method by its name: the one place, besides its own file, that adding a method touches.

From here study, benchmark, command line, report, tables and plans take what methods there are. In the order in which
tables show them. Nothing is imported that a method's name, label or colour does not need; `Method.recipe` does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mechinterp.errors import InputError, near
from mechinterp.methods.method import Method

if TYPE_CHECKING:
    from pydantic import BaseModel

_ALL: tuple[Method, ...] = (
    Method("vanilla", "unchanged:VANILLA", "the model as it is", "Vanilla", "#555555", tunes=False),
    Method(
        "suffix",
        "unchanged:SUFFIX_ONLY",
        "the model as it is, the suffix after every query",
        "Suffix only",
        "#aaaaaa",
        suffix=True,
        tunes=False,
    ),
    Method(
        "sft", "training.sft:SFT", "fine-tuned on prompts and their safe responses", "SFT", "#0072B2", ("training",)
    ),
    Method(
        "dpo",
        "training.dpo:DPO",
        "from sft, tuned to prefer safe to unsafe responses",
        "DPO",
        "#E69F00",
        ("training",),
        after="sft",
    ),
    Method(
        "self_reminder",
        "self_reminder:SELF_REMINDER",
        "a reminder before and after every query",
        "Self-Reminder",
        tunes=False,
    ),
    Method(
        "ext_sub",
        "training.ext_sub:EXT_SUB",
        "an expert's change less what an anti-expert learned",
        "Ext-Sub",
        takes=("training",),
    ),
    Method("ga", "unlearning.ga:GA", "gradient ascent on the unsafe responses", "GA", "#B22222", ("training",)),
    Method(
        "grad_diff",
        "unlearning.grad_diff:GRAD_DIFF",
        "ascent on the unsafe responses, fine-tuning on what is to be kept",
        "GradDiff",
        "#F08080",
        ("training",),
    ),
    Method(
        "ga_kl",
        "unlearning.ga_kl:GA_KL",
        "ascent on the unsafe responses, held to its own distributions elsewhere",
        "GA+KL",
        "#8B4513",
        ("training",),
    ),
    Method(
        "npo",
        "unlearning.npo:NPO",
        "unsafe responses made less likely than before, as far as it matters",
        "NPO",
        "#6A3D9A",
        ("training",),
    ),
    Method(
        "simnpo",
        "unlearning.simnpo:SIMNPO",
        "unsafe responses made unlikely token by token, without a reference",
        "SimNPO",
        "#B39DDB",
        ("training",),
    ),
    Method(
        "rmu",
        "unlearning.rmu:RMU",
        "states on unsafe responses led elsewhere in three matrices W_V",
        "RMU",
        "#17BECF",
        ("training",),
    ),
    Method(
        "random_label",
        "unlearning.random_label:RANDOM_LABEL",
        "fine-tuned on random tokens in place of the unsafe responses",
        "Random labels",
        "#BCBD22",
        ("training",),
    ),
    Method(
        "memflex",
        "unlearning.memflex:MEMFLEX",
        "ascent and fine-tuning where their gradients part",
        "MemFlex",
        "#E377C2",
        ("training",),
    ),
    Method("ft_l", "editing.ft_l:FT_L", "one block's MLP fine-tuned on one instance", "FT-L", per_instance=True),
    Method(
        "dinm",
        "editing.ablations:DINM",
        "W_V edited at the toxic layer",
        "DINM",
        "#009E73",
        per_instance=True,
        suffix=True,
    ),
    Method(
        "dinm_wo_suffix",
        "editing.ablations:WITHOUT_SUFFIX",
        "dinm, trained and asked without the suffix",
        per_instance=True,
    ),
    Method(
        "dinm_wo_constraint",
        "editing.ablations:WITHOUT_CONSTRAINT",
        "dinm without the knowledge constraint",
        per_instance=True,
        suffix=True,
    ),
    Method(
        "dinm_wo_location",
        "editing.ablations:WITHOUT_LOCATION",
        "dinm at a block drawn at random",
        per_instance=True,
        suffix=True,
    ),
    Method(
        "dinm_wo_tune",
        "unchanged:WITHOUT_TUNING",
        "dinm without the edit: the suffix alone",
        suffix=True,
        tunes=False,
    ),
    Method("dinm_at_block", "editing.ablations:AT_BLOCK", "dinm at one given block", per_instance=True, suffix=True),
    Method("dinm_batch", "editing.ablations:BATCH", "one edit for all instances together", suffix=True),
    Method(
        "dinm_sequential", "editing.ablations:SEQUENTIAL", "edit on top of edit, instance after instance", suffix=True
    ),
    Method(
        "rome", "facts.on_pairs:ROME", "W_V of one block changed by rank 1 on one instance", "ROME", per_instance=True
    ),
    Method(
        "memit",
        "facts.on_pairs:MEMIT",
        "one edit for all instances together, over several blocks",
        "MEMIT",
        takes=("instances", "training"),
    ),
    Method(
        "alphaedit",
        "facts.on_pairs:ALPHAEDIT",
        "edit on top of edit, where other texts leave the keys free",
        "AlphaEdit",
        takes=("instances", "training"),
    ),
    Method(
        "ft_m",
        "facts.on_pairs:FT_M",
        "W_V of one block fine-tuned on one instance, each token after the ones before",
        "FT-M",
        per_instance=True,
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}

STUDIED = ("sft", "dpo", "dinm")
"""Those that a study compares with its vanilla model unless its config names others."""


UNLEARNING = tuple(name for name, method in METHODS.items() if method.recipe_at.startswith("unlearning."))
"""Those that take answers to forget and answers to keep."""


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: if there is none, with the known ones.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known are {', '.join(METHODS)}{near(name, METHODS)}")
    return METHODS[name]


def find_unlearning(name: str) -> Method:
    """The method of unlearning of that name.

    Raises:
        InputError: if there is none, or it does not unlearn.
    """
    if name not in UNLEARNING:
        raise InputError(
            f"{name:.40} is no method of unlearning; known are {', '.join(UNLEARNING)}{near(name, UNLEARNING)}"
        )
    return METHODS[name]


def settings_for(name: str, given: Mapping[str, Any] | BaseModel) -> BaseModel:
    """A method's settings from what a user wrote; they go into `Task.settings` under its name.

    Raises:
        InputError: for an unknown method, or a setting that is unknown, missing or out of range; it names the setting.
    """
    from mechinterp.methods.task import checked_settings  # which imports torch

    return checked_settings(name, find_method(name).recipe.settings, given)
