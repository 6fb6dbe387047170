"""Models without a byte of weights, built once for configs that say the same: checkpoints of a study often do."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Described:
    """A config by what it says; equal for two that say the same, wherever they were read.

    Attributes:
        kind: its class.
        content: all that it says but the place that it was read from.
        trust_remote_code: whether code that comes with it may run.
        config: itself.
    """

    kind: type[PretrainedConfig]
    content: str
    trust_remote_code: bool
    config: PretrainedConfig = field(compare=False)

    @classmethod
    def of(cls, config: PretrainedConfig, trust_remote_code: bool = False) -> Described:
        """Describe a config; one that cannot be written as JSON equals itself alone."""
        try:
            said = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
            content = json.dumps(said, default=str)
        except (TypeError, ValueError, AttributeError, KeyError):
            content = str(id(config))
        return cls(type(config), content, trust_remote_code, config)


@lru_cache(maxsize=8)
def skeleton_of(described: Described) -> PreTrainedModel:
    """The model of a config on the meta device: module classes, names and shapes, to be read and not changed."""
    with torch.device("meta"):  # nothing is run, so that the config's own kernel of attention is not needed
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            deepcopy(described.config), trust_remote_code=described.trust_remote_code, attn_implementation="eager"
        )
    return model
