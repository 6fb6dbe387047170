"""Models and numbers of released implementations, see the SOURCES.md beside each."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from mechinterp.models.checkpoints import Checkpoint

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> Any:
    """What a JSON file there holds."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@cache
def golden_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of all of their models."""
    return AutoTokenizer.from_pretrained(GOLDEN / "tokenizer")


def golden_checkpoint(name: str) -> Checkpoint:
    """A model of theirs, as a checkpoint of its own."""
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / name).eval()
    return Checkpoint(Path(name).name, model, golden_tokenizer(), name)
