"""A tiny pretrained model of SmolLM2's shape and template, and the study that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from mechinterp.data.corpus import generate_corpus
from mechinterp.methods.training.organism import train_tokenizer
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

REPOSITORY = Path(__file__).parent.parent
CONFIG = REPOSITORY / "analyses" / "configs" / "smollm2.yaml"
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMALL: dict[str, Any] = {
    "corpus": {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 120, "n_comments": 80},
    "teach": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "asked": 9},
    "sft": {"steps": 3, "batch_size": 4},
    "dpo": {"steps": 2, "batch_size": 4},
    "dinm": {"steps": 2},
    "dinm_rates": {"instances": 2, "questions": 2},
    "edit_instances": 2,
    "knowledge_questions": 3,
    "max_new_tokens": 4,
    "comparison": {"max_new_tokens": 4, "steering_inputs": 6, "middle_inputs": 4, "null_draws": 6, "first_tokens": 2},
    "relapse": {"prompts": 4},
}
"""What the shrunken config has instead of the real one's sizes."""
ORIGINS = {"prompts": 4, "tokens": 4, "nodes": 2, "most_nodes": 0}
"""Likewise, of what the real one leaves to the default."""


def write_pretrained(folder: Path) -> None:
    """Llama's shape with grouped queries and tied embeddings, ChatML with a system message of its own; random."""
    tokenizer = train_tokenizer(generate_corpus(seed=0, n_documents=300, n_comments=40), vocab_size=800)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE
    shape = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 3}
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        **shape,
        num_key_value_heads=1,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **tokens,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **tokens)
    Checkpoint("pretrained", model.eval(), tokenizer).save(folder)


def shrunken(base: Path, comments: Path | None = None) -> dict[str, Any]:
    """The real config's content with a tiny base and small sizes."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for name, small in SMALL.items():
        content[name] = {**content.get(name, {}), **small} if isinstance(small, dict) else small
    content["teach"]["base"] = str(base)
    return content if comments is None else {**content, "comments": str(comments)}


def taught_study(folder: Path, comments: Path | None = None) -> Study:
    """The shrunken study, below a folder; nothing has run."""
    write_pretrained(folder / "pretrained")
    content = {**shrunken(folder / "pretrained", comments), "origins": ORIGINS}
    (folder / "small.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return Study(load_config(folder / "small.yaml"), 0, folder / "run")
