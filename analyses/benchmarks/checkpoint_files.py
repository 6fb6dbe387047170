"""Sharded checkpoints made for a benchmark: files of a stated real shape, written without a model being built.

Values are a few million normal random numbers, said over again from another place on in every tensor: neither reading
nor arithmetic depends on them, and a benchmark should not spend its minutes on drawing more.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from random_models import Shape
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig

from mechinterp.errors import InputError

Change = Callable[[str, Tensor], Tensor]

_NUMBERS = 8_388_593  # a prime, so that no two rows of a matrix are alike


def unchanged(_name: str, tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


def all_changed(_name: str, tensor: Tensor) -> Tensor:
    """Every number a little larger, by more than rounding to bfloat16 takes back."""
    return (tensor.float() * 1.05).to(tensor.dtype)


def low_rank_changed(rank: int) -> Change:
    """Every matrix changed by one of low rank, as by a merged adapter, of half the matrix's size; the rest as it is."""
    generator = torch.Generator().manual_seed(2)

    def change(_name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim != 2:
            return tensor
        left, right = (torch.randn(size, rank, generator=generator) for size in tensor.shape)
        return (tensor.float() + 0.01 / rank**0.5 * (left @ right.T)).to(tensor.dtype)

    return change


def one_changed(changed: str) -> Change:
    """Only the tensor of that name changed."""
    return lambda name, tensor: all_changed(name, tensor) if name == changed else tensor


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_config(shape))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def stored_bytes(shape: Shape) -> int:
    """Bytes of all parameters in bfloat16."""
    return sum(2 * math.prod(sizes) for sizes in parameter_shapes(shape).values())


def check_disk(folder: Path, needed: int) -> None:
    """Refuse to begin what would fill the disk."""
    if (free := shutil.disk_usage(folder).free) < 1.1 * needed:
        raise InputError(f"{folder}: {needed / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free")


def evict(folder: Path) -> None:
    """Have the system forget the cached pages of a folder's files, so that they are read from the disk again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only pages that are on the disk can be forgotten
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(*folders: Path) -> None:
    """Every tensor into memory, one at a time."""
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    file.get_tensor(name).clone()


def write_checkpoint(folder: Path, shape: Shape, *, change: Change = unchanged, shards: int = 4) -> Path:
    """Write a bfloat16 Mistral checkpoint in about `shards` files; the same values for the same shape.

    Args:
        change: what is done to each tensor before it is written.
    """
    folder.mkdir()
    _config(shape).save_pretrained(folder)
    limit = stored_bytes(shape) / shards
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    numbers = 0.02 * torch.randn(_NUMBERS, generator=generator)
    pool = numbers.to(torch.bfloat16)

    def finish() -> None:
        file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
        shard.clear()

    for place, (name, sizes) in enumerate(parameter_shapes(shape).items()):
        tensor = torch.empty(math.prod(sizes), dtype=torch.bfloat16)
        for part in tensor.split(len(pool)):
            part.copy_(pool.roll(1009 * place)[: len(part)])
        shard[name] = change(name, tensor.reshape(sizes))
        if sum(tensor.nbytes for tensor in shard.values()) >= limit:
            finish()
    if shard:
        finish()
    index = {"metadata": {"total_size": stored_bytes(shape)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _config(shape: Shape) -> MistralConfig:
    return MistralConfig(
        **asdict(shape), tie_word_embeddings=False, dtype="bfloat16", architectures=["MistralForCausalLM"]
    )
