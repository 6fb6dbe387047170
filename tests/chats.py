"""Tiny random chat models: TRL's chat templates, and a byte tokenizer with the special tokens that they write."""

from __future__ import annotations

import copy
from functools import cache
from importlib.resources import files

import torch
from conftest import CONFIGS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.text.chat import ChatChoice, ChatFormat

TEMPLATES = (
    "qwen2_5",
    "qwen3",
    "llama3",
    "llama3_1",
    "llama3_2",
    "gemma",
    "gemma3",
    "phi3",
    "phi3_5",
    "glm4moe",
    "lfm2",
)
TEMPLATES += ("cohere", "qwen3_instruct_2507")
NO_SYSTEM = ("gemma",)
"""Templates that refuse a system message."""

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>"]
SPECIAL += ["<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|end|>"]
SPECIAL += ["<|assistant|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
SPECIAL += [
    "<|SYSTEM_TOKEN|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "[gMASK]",
    "<sop>",
]
SPECIAL += ["<｜end▁of▁sentence｜>"]
_ENDS = {"qwen": "<|im_end|>", "lfm2": "<|im_end|>", "llama3": "<|eot_id|>", "deepseek": "<｜end▁of▁sentence｜>"}


@cache
def template(name: str) -> str:
    """The source of a template that TRL ships."""
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def chat_tokenizer(name: str | None = "qwen2_5", *, bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte and the special ones, with a template, or without one.

    Args:
        name: of the template.
        bos: put a BOS in front of plain texts, as Llama's and Gemma's tokenizers do.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*alphabet, *SPECIAL])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 257)])
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[4:],
    )
    if name is not None:
        found.chat_template = template(name)
    return found


@cache
def _model(seed: int) -> PreTrainedModel:
    config = CONFIGS["llama"]()
    config.vocab_size, config.max_position_embeddings = 320, 512
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return model.eval()


def chat_checkpoint(
    name: str | None = "qwen2_5",
    *,
    chat: ChatFormat | ChatChoice | None = None,
    seed: int = 0,
    called: str = "chatty",
    bos: bool = False,
) -> Checkpoint:
    """A random model that reads conversations; in its template's own format if none is given."""
    tokenizer = copy.deepcopy(chat_tokenizer(name, bos=bos))
    wanted = chat if isinstance(chat, ChatFormat) else (chat or ChatChoice()).of(tokenizer, called)
    return Checkpoint(called, copy.deepcopy(_model(seed)), tokenizer, called, chat=wanted)
