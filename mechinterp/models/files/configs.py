"""Whether two configs of one architecture compute the same function from the same weights.

Head counts, activation, RoPE and the like leave no trace in the names and shapes of weights. What does not change the
function at inference is left out: names and versions, token ids and labels, dropout and whatever else is for training
or initialisation, outputs and caches, the implementation of attention, and how weights are stored (type, quantiser).
So is the length that a model was built for, unless its RoPE depends on it: what of a text is read is not its function.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

# Of keys, anywhere in them.
_INERT = re.compile(
    r"^_|name_or_path|version|architectures|auto_map|dtype|dropout|pdrop|layerdrop|token_ids?$|initializer|init_std"
    r"|label|problem_type|classifier|^summary_|^output_|return_dict|implementation|cache|checkpointing|_loss"
    r"|aux_loss|jitter|seq_aux|pretraining_tp|chunk_size_feed_forward|quantization|^n_inner$|^max_window_layers$"
)  # the last two are told by shapes and by layer_types
_LENGTHS = ("max_position_embeddings", "n_positions")
_LENGTH_BLIND = ("default", "linear", "llama3")  # kinds of RoPE that do not ask for the model's length


def unlike_configs(a: PretrainedConfig, b: PretrainedConfig) -> str | None:
    """Say in which settings two configs of one architecture differ that change what is computed.

    Only settings that the config's class declares are looked at, each with the default that this transformers fills
    in, so that files of different versions agree; keys that a tool has added to a file are not.

    Args:
        a: a config.
        b: another of the same class.

    Returns:
        `num_attention_heads (2 and 4), ...`, the first three; None if they compute the same.
    """
    settings = [_settings(config.get_text_config()) for config in (a, b)]
    names = sorted(settings[0].keys() | settings[1].keys())
    pairs = {name: (settings[0].get(name), settings[1].get(name)) for name in names}
    unlike = [f"{name} ({one} and {two})" for name, (one, two) in pairs.items() if one != two]
    if len(unlike) > 3:
        unlike[3:] = [f"{len(unlike) - 3} more"]
    return ", ".join(unlike) or None


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    """What the function depends on, flat; what is unset or false is not in it."""
    declared = inspect.signature(type(config)).parameters
    held = {name: value for name, value in config.to_dict().items() if name in declared and not _INERT.search(name)}
    heads = held.get("num_attention_heads")
    if "num_key_value_heads" in held and held["num_key_value_heads"] is None:  # these two as the models fill them in
        held["num_key_value_heads"] = heads
    if "head_dim" in held and held["head_dim"] is None and heads:
        held["head_dim"] = held["hidden_size"] // heads
    flat = _flat(held)
    kinds = {value for name, value in flat.items() if name.endswith("rope_type")}
    if "rope_parameters" not in declared or kinds <= set(_LENGTH_BLIND):
        flat = {name: value for name, value in flat.items() if name not in _LENGTHS}
    return flat


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None and value is not False and not (prefix and name == "type"):  # RoPE's type, as once named
            flat[prefix + name] = value
    return flat
