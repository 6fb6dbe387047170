"""The tiny models with which the released editors were run, and what they gave."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mechinterp.models.checkpoints import Checkpoint

GOLDEN = Path(__file__).parent / "golden"


@cache
def _model(architecture: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(GOLDEN / "rome" / architecture).eval()


def golden_checkpoint(architecture: str) -> Checkpoint:
    """`gpt2` or `llama`, of three blocks; a copy for each caller."""
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer")
    return Checkpoint(architecture, copy.deepcopy(_model(architecture)), tokenizer, architecture)


@cache
def golden(system: str, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file of results holds: settings and other numbers, tensors."""
    folder = GOLDEN / system
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def off_by(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what was expected."""
    return float((found - expected).norm() / expected.norm())
