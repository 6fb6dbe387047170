"""The tokenizer in a GGUF file, with its special tokens and chat template, and the tokens that end an answer."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from mechinterp.models.gguf_config import config_in
from mechinterp.models.gguf_header import GgufHeader


def tokenizer_in(header: GgufHeader) -> PreTrainedTokenizerBase:
    """The tokenizer of a file; a copy, as transformers takes seconds to read a large vocabulary.

    Raises:
        Exception: transformers' or tokenizers' own, for one that they cannot read.
    """
    return copy.deepcopy(_read(header))


@lru_cache(maxsize=4)
def _read(header: GgufHeader) -> PreTrainedTokenizerBase:
    with TemporaryDirectory() as alone:  # another model's files beside it would be taken for this one's
        (Path(alone) / "model.gguf").symlink_to(header.path.resolve())
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            alone, gguf_file="model.gguf", config=config_in(header)
        )
    described = json.loads(found.backend_tokenizer.to_str())
    count = header.settings["tokenizer.ggml.tokens"]
    kept = [token for token in described["added_tokens"] if token["id"] < count]
    if len(kept) < len(described["added_tokens"]):  # a class's own, for which the model has no row
        found._tokenizer = Tokenizer.from_str(json.dumps({**described, "added_tokens": kept}))
    found.name_or_path = str(header.path)
    return found


def generation_in(header: GgufHeader) -> GenerationConfig:
    """The special tokens of a file, which may end an answer by another token than a text."""
    names = ("bos", "eos", "eot", "eom", "padding")
    ids = {name: header.settings.get(f"tokenizer.ggml.{name}_token_id") for name in names}
    ends = list(dict.fromkeys(ids[name] for name in ("eos", "eot", "eom") if ids[name] is not None))
    return GenerationConfig(
        bos_token_id=ids["bos"],
        pad_token_id=ids["padding"],
        eos_token_id=ends if len(ends) > 1 else (ends or [None])[0],
    )
