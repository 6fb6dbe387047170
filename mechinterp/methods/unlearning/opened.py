"""A copy of a model whose weights, new adapters or a folder's adapter are to be trained, and how it becomes whole."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mechinterp.errors import InputError
from mechinterp.methods.training.trained_parameters import linear_maps, trained_parameters
from mechinterp.methods.unlearning.settings import AdapterSettings, UnlearningSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.loading import merge_adapter, with_adapter
from mechinterp.models.sources import Source

PEFT = "base_model.model."
"""Stands before the names of parameters where peft lists them."""


@dataclass(frozen=True)
class Opened:
    """A copy to be trained.

    Attributes:
        checkpoint: the copy.
        reference: the model as it is before; its weights are not touched.
        parameters: that may be trained, by name; an adapter's as peft lists them.
        whole: merges what was trained into the weights of the copy, and gives the plain model.
    """

    checkpoint: Checkpoint
    reference: Checkpoint
    parameters: Mapping[str, nn.Parameter]
    whole: Callable[[], PreTrainedModel]


def open_copy(
    checkpoint: Checkpoint, settings: UnlearningSettings, *, seed: int, region: Collection[str] | None = None
) -> Opened:
    """Copy a checkpoint's model, and say what of it is trained.

    Args:
        checkpoint: left as it was.
        settings: of the method: full weights, new adapters, or those of a folder; and of which components.
        seed: of new adapters.
        region: names of the tensors that alone are trained; of new adapters those that they are put on.

    Raises:
        InputError: for a component or tensor that there is not, or an adapter that does not fit.
    """
    if settings.adapter is not None:
        return _of_folder(checkpoint, settings, region)
    names = trained_parameters(checkpoint, only=settings.only, freeze=settings.freeze)
    if settings.lora is not None:
        maps = linear_maps(checkpoint, names)
        if region is not None:
            wanted = within([f"{path}.weight" for path in maps], region, "the adapters")
            maps = [name.removesuffix(".weight") for name in wanted]
        return _with_new(checkpoint, settings.lora, maps, seed)
    own = checkpoint.copied()
    chosen = set(names if region is None else within(sorted(names), region, "the model"))
    found = {name: parameter for name, parameter in own.model.named_parameters() if name in chosen}
    return Opened(own, checkpoint, found, lambda: own.model)


def within(known: Collection[str], region: Collection[str], whose: str) -> list[str]:
    """The names of a region, as they are known; peft's and the model's own are the same.

    Raises:
        InputError: if one of them is not there.
    """
    own = {name.removeprefix(PEFT): name for name in known}
    wanted = [name.removeprefix(PEFT) for name in region]
    if lacking := [name for name in wanted if name not in own]:
        raise InputError(
            f"{whose} cannot train {len(lacking)} of {len(wanted)} located tensors, {lacking[0]!r} the first; give a "
            f"region that was located there, with tensors such as {next(iter(own.values()), 'none')!r}"
        )
    return [own[name] for name in dict.fromkeys(wanted)]


def _with_new(checkpoint: Checkpoint, lora: AdapterSettings, maps: Collection[str], seed: int) -> Opened:
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(checkpoint.model)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(maps), task_type="CAUSAL_LM")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the libraries call in each other, which a user cannot act on
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    return _wrapped(checkpoint, model, wrapped, checkpoint)


def _of_folder(checkpoint: Checkpoint, settings: UnlearningSettings, region: Collection[str] | None) -> Opened:
    assert settings.adapter is not None
    source = Source.find(settings.adapter)
    if source.kind != "adapter":
        raise InputError(f"{settings.adapter}: is no adapter's folder; give one, or leave `adapter` out")
    if settings.only or settings.freeze:
        raise InputError("`only` and `freeze` choose among weights, and go without `adapter`; give a region instead")
    model = copy.deepcopy(checkpoint.model)
    reference = replace(checkpoint, model=merge_adapter(copy.deepcopy(checkpoint.model), source))
    opened = _wrapped(checkpoint, model, with_adapter(model, source), reference)
    if region is None:
        return opened
    kept = within(opened.parameters, region, "the adapter")
    return replace(opened, parameters={name: opened.parameters[name] for name in kept})


def _wrapped(checkpoint: Checkpoint, model: PreTrainedModel, wrapped: Any, reference: Checkpoint) -> Opened:
    """The model below peft's is called: its modules are the same, under their own names."""
    found = {name: parameter for name, parameter in wrapped.named_parameters() if "lora_" in name}
    return Opened(replace(checkpoint, model=model), reference, found, partial(_merged, wrapped))


def _merged(wrapped: Any) -> PreTrainedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: PreTrainedModel = wrapped.merge_and_unload()
    if vars(model).get("peft_config"):
        del model.peft_config
    return model
