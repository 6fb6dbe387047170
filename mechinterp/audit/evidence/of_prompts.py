"""What is kept of a checkpoint's change along a direction of each prompt's own.

It is as large as that along one direction: of each block a number for every neuron and for every group of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.measures.decomposition import BlockDecomposition


@dataclass(frozen=True)
class PromptTerms:
    """The terms of every block, along each prompt's own direction at the last prompt token.

    Attributes:
        blocks: the decompositions.
        group_sizes: prompts in each group, [group].
        writes: the tuned model's own write of each prompt, summed over blocks, float64 [row].
    """

    blocks: tuple[BlockDecomposition, ...]
    group_sizes: Float[Tensor, " group"]
    writes: Float[Tensor, " row"]

    def save(self, path: Path) -> Path:
        """Write as safetensors."""
        tensors = {"group_sizes": self.group_sizes, "writes": self.writes}
        for part in fields(BlockDecomposition):
            values = [getattr(block, part.name) for block in self.blocks]
            scalar = isinstance(values[0], float)
            tensors[f"blocks/{part.name}"] = (
                torch.tensor(values, dtype=torch.float64) if scalar else torch.stack(values)
            )
        save_file(tensors, path)
        return path

    @classmethod
    def load(cls, path: Path) -> PromptTerms:
        """Read back what `save` wrote."""
        tensors = {name: value.clone() for name, value in load_file(path).items()}
        parts = {part.name: tensors[f"blocks/{part.name}"] for part in fields(BlockDecomposition)}
        blocks = []
        for block in range(len(parts["bias"])):
            own = {name: of[block] for name, of in parts.items()}
            values: dict[str, Any] = {name: of if of.dim() else of.item() for name, of in own.items()}
            blocks.append(BlockDecomposition(**values))
        return cls(tuple(blocks), tensors["group_sizes"], tensors["writes"])
