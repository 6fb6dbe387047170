"""What stands on a tiny checkpoint: the same with other weights, an adapter, a probe, edits."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(IDS).logits


def make_adapter(base: Checkpoint, folder: Path, *, names: str | None, **settings: object) -> torch.Tensor:
    """Save a random LoRA adapter of a copy of the base; returns the logits with the adapter beside the weights."""
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **settings}
    wrapped = get_peft_model(copy.deepcopy(base.model), LoraConfig(**options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data += (0.2 * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
    wrapped.peft_config["default"].base_model_name_or_path = names
    wrapped.save_pretrained(folder)
    return logits(wrapped)


def perturbed(checkpoint: Checkpoint, *, only: str = "", seed: int = 1) -> Checkpoint:
    model = copy.deepcopy(checkpoint.model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return Checkpoint("tuned", model, checkpoint.tokenizer)


def changed(checkpoint: Checkpoint, *, blocks: tuple[int, ...] = (1,), seed: int = 5) -> Checkpoint:
    """The same checkpoint with other value matrices, and other biases where it has them."""
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        for name in (checkpoint.names.value_parameter(block)[0], checkpoint.names.value_bias_parameter(block)):
            if name is not None:
                parameter = checkpoint.parameter(name).data
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return replace(checkpoint, name="changed")


def probe_of(width: int, fingerprint: str = "") -> ToxicProbe:
    rows = torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    return ToxicProbe(rows, rows.clone(), (), torch.zeros(2, 2), fingerprint=fingerprint)


def edits_in(folder: Path, checkpoint: Checkpoint, ids: list[int]) -> Path:
    """Edits that change the answers, one for each id."""
    name, _ = checkpoint.names.value_parameter(1)
    for i in ids:
        change = torch.randn(checkpoint.parameter(name).shape, generator=torch.Generator().manual_seed(i))
        WeightDelta({name: change}, 1, i, fingerprint=checkpoint.fingerprint).save(folder / str(i))
    return folder
