"""The config of a GGUF file: as transformers makes it of the settings, and what transformers leaves out.

A config that lacks a setting computes another function from the same weights, so that what cannot be told is refused.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from gguf import dequantize
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mechinterp.errors import InputError
from mechinterp.models.gguf_header import GgufHeader

FREQUENCIES = "rope_freqs.weight"
"""The tensor in which Llama 3's files keep how positions are scaled: by what each rotary frequency is divided."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_in(header: GgufHeader) -> PretrainedConfig:
    """The config of a file, as transformers makes it; a copy, as that takes it seconds for a large vocabulary.

    Raises:
        Exception: transformers' own, for an architecture that it does not know or settings that it cannot use.
    """
    return copy.deepcopy(_read(header))


@lru_cache(maxsize=4)
def _read(header: GgufHeader) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(header.path.parent, gguf_file=header.path.name)
    return config


def complete_config(config: PretrainedConfig, header: GgufHeader) -> PretrainedConfig:
    """The config with what the file says beside what transformers takes from it; it is changed in place.

    Raises:
        InputError: if the positions are scaled in a way that cannot be told from the file.
    """
    vars(config).pop("_model_name_or_path", None)  # the model's title, under a name that transformers does not know
    for name, value in list(vars(config).items()):
        setattr(config, name, _short(value))
    if hasattr(config, "max_position_embeddings") and (length := header.setting("context_length")):
        config.max_position_embeddings = int(length)  # transformers leaves GPT-2's out
    if FREQUENCIES in header.tensors:
        config.rope_parameters = _llama3(config, header)
    kind, positions = header.setting("rope.scaling.type"), getattr(config, "rope_parameters", None) or {}
    if kind in (None, "none") or positions.get("rope_type", "default") != "default":
        return config
    if kind != "linear":
        raise InputError(
            f"{header.path}: its positions are scaled ({kind}), which transformers does not read from GGUF; give "
            "the model's transformers folder"
        )
    factor = _short(header.setting("rope.scaling.factor"))
    config.rope_parameters = {**positions, "rope_type": "linear", "factor": factor}
    return config


def _short(value: Any) -> Any:
    """Numbers that a file keeps in four bytes, as they were written before (1e-05, not 9.999999747378752e-06)."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def _llama3(config: PretrainedConfig, header: GgufHeader) -> dict[str, Any]:
    """Llama 3's scaling, if it is what the stored divisors of the frequencies say."""
    divisors = torch.tensor(dequantize(header.stored(FREQUENCIES), header.tensors[FREQUENCIES].type))
    settings = {**config.rope_parameters, "rope_type": "llama3", "factor": round(float(divisors.max()), 4), **_LLAMA3}
    scaled = type(config).from_dict({**config.to_dict(), "rope_parameters": settings})
    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, head, 2) / head)
    if divisors.shape != inverse.shape or not torch.allclose(plain / divisors, inverse, rtol=1e-4):
        raise InputError(
            f"{header.path}: its positions are scaled ({FREQUENCIES}) in another way than Llama 3's; give the model's "
            "transformers folder"
        )
    return settings
