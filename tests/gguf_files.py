"""Tiny GGUF files, written as llama.cpp's converter writes them: its names, layouts, settings and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from conftest import CONFIGS, byte_tokenizer
from gguf import GGMLQuantizationType, GGUFWriter
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from mechinterp.models.checkpoints import Checkpoint

TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
_WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
_NAMES = {
    "gpt2": {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "transformer.h.": "blk.",
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    "llama": {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
}


def wide(kind: str, *, seed: int = 0, **settings: object) -> Checkpoint:
    """A random model whose rows are whole blocks of 32, with fewer key heads than heads, so that layouts differ."""
    made = {
        "llama": lambda s: LlamaConfig(**{**CONFIGS["llama"]().to_dict(), **_WIDE, "head_dim": 16, **s}),
        "qwen2": lambda s: Qwen2Config(**{**CONFIGS["qwen2"]().to_dict(), **_WIDE, **s}),
        "gpt2": lambda s: type(CONFIGS["gpt2"]())(
            **{**CONFIGS["gpt2"]().to_dict(), "n_embd": 64, "n_inner": 256, "n_positions": 1024, "n_head": 4, **s}
        ),
    }[kind](settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return Checkpoint(kind, model, byte_tokenizer(), kind)


def write_gguf(
    checkpoint: Checkpoint,
    path: Path,
    kind: str = "F32",
    *,
    settings: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray] | None = None,
    name: str | None = None,
) -> Path:
    """Write a checkpoint of GPT-2, Llama or Qwen2 as a GGUF file.

    Args:
        checkpoint: to be written.
        path: of the file.
        kind: GGML's type of the matrices; norms and biases, and rows that are not whole blocks, stay F32.
        settings: more metadata by key (numbers and texts), over what is written otherwise.
        extra: more tensors, in F32.
        name: the architecture's name in the file, if it is to say another.
    """
    config, architecture = checkpoint.model.config, name or checkpoint.model.config.model_type
    writer = GGUFWriter(str(path), architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, checkpoint)
    for key, value in (settings or {}).items():
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)](key, value)
    held = {own: parameter.detach() for own, parameter in checkpoint.model.named_parameters()}
    for own, tensor in held.items():
        numbers = _laid_out(own, tensor, config).float().numpy()
        given = GGMLQuantizationType[kind]
        coded = numbers.ndim == 2 and numbers.shape[-1] % gguf.GGML_QUANT_SIZES[given][0] == 0
        stored = given if coded else GGMLQuantizationType.F32
        writer.add_tensor(_renamed(own, config.model_type), gguf.quantize(numbers, stored), raw_dtype=stored)
    for own, numbers in (extra or {}).items():
        writer.add_tensor(own, numbers.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: GGUFWriter, checkpoint: Checkpoint) -> None:
    import json

    tokenizer = checkpoint.tokenizer
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token, _ in vocabulary])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _renamed(own: str, kind: str) -> str:
    for theirs, ours in _NAMES["gpt2" if kind == "gpt2" else "llama"].items():
        own = own.replace(theirs, ours)
    return own


def _laid_out(own: str, tensor: Tensor, config: Any) -> Tensor:
    """As llama.cpp lays a weight out: Llama's query and key rows by halves of a head, GPT-2's matrices transposed."""
    if config.model_type == "gpt2" and tensor.ndim == 2 and ".h." in own:
        return tensor.T.contiguous()
    if config.model_type == "llama" and own.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in own else config.num_key_value_heads
        rows = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return rows.swapaxes(1, 2).reshape(tensor.shape)
    return tensor
