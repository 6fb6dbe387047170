"""What identifies a tokenizer, and its special tokens by their roles."""

from __future__ import annotations

import json
import re

from transformers import PreTrainedTokenizerBase

from mechinterp.data.storage.provenance import digest

_PADDING = re.compile(r"(?<![a-z])pad(?![a-z])", re.IGNORECASE)  # [PAD], <pad>, <|right_pad_id|>


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what a tokenizer makes of texts: equal for tokenizers that encode alike.

    Padding is not in it, nor a token for padding alone, which many trainers add: it is always masked.
    """
    if tokenizer.is_fast:
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        described = {key: part for key, part in described.items() if key not in ("padding", "truncation")}  # of a call
        added = [token for token in described["added_tokens"] if not _pads_only(tokenizer, token["content"])]
        described["added_tokens"] = added
    else:
        vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if not _pads_only(tokenizer, token)}
        described = {"class": type(tokenizer).__name__, "vocabulary": vocabulary}
    return digest([described, special_tokens(tokenizer)])


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The special tokens by their roles, but for padding's."""
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}


def _pads_only(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether a token is called padding and has no other role: by its name, as it may be there without being used."""
    return _PADDING.search(token) is not None and token not in special_tokens(tokenizer).values()
