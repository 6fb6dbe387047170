"""A model of the same shape with random weights: what is found in it, no training put there."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from mechinterp.models.checkpoints import Checkpoint


def with_random_weights(checkpoint: Checkpoint, *, seed: int) -> Checkpoint:
    """A new model as the checkpoint's architecture initialises it, with its tokenizer and chat format.

    Args:
        checkpoint: left as it was.
        seed: of the weights; the global random state is left as it was.

    Returns:
        It, named `random`, in the type of the checkpoint's weights and on its first device.
    """
    kind: Any = type(checkpoint.model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        dtype = next(checkpoint.model.parameters()).dtype
        model = kind._from_config(copy.deepcopy(checkpoint.model.config), dtype=dtype)
    model.generation_config = copy.deepcopy(checkpoint.model.generation_config)
    return replace(checkpoint, name="random", model=model.to(checkpoint.device).eval(), source="random weights")
