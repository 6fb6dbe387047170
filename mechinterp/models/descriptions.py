"""What describes a checkpoint besides its weights: the config and the tokenizer."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.models.sources import Source

# What transformers and peft raise for files that are damaged or do not fit.
LOADING_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(SafetensorError, UnpicklingError),
)


def read_config(source: Source, base: Source | None = None, *, trust_remote_code: bool) -> PretrainedConfig:
    """The config of a model; of an adapter, an edit or bare tensors it is that of the base.

    Raises:
        InputError: if it cannot be read, or is of no model that this transformers knows.
    """
    below: Source | None = source
    while below is not None and below.kind not in ("model", "hub"):
        below, base = below.base(None if base is None else base.place), None
    if below is None:  # base() raises where a base is needed, so this is for the type checker
        raise InputError(f"{source.given}: there is no config")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            below.place, **loading_options(below, trust_remote_code=trust_remote_code)
        )
    except LOADING_ERRORS as error:
        raise cannot_load(below, error) from error
    return config


def read_tokenizer(
    source: Source, base: Source | None, config: PretrainedConfig, *, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    """The tokenizer that lies with a checkpoint, else its base's.

    Raises:
        InputError: if neither has one, or it cannot be read.
    """
    held = next((place for place in (source, base) if place is not None and place.has_tokenizer), None)
    if held is None and base is not None and base.kind == "adapter":
        return read_tokenizer(base, base.base(None), config, trust_remote_code=trust_remote_code)
    if held is None:
        where = "in it or in its base" if base is not None else "in it; give the base that has one"
        raise InputError(f"{source.given}: there are no tokenizer files {where}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            held.place, config=config, **loading_options(held, trust_remote_code=trust_remote_code)
        )
    except LOADING_ERRORS as error:
        raise InputError(f"{held.given}: its tokenizer cannot be read ({one_line(error)})") from error
    return tokenizer


def loading_options(source: Source, *, trust_remote_code: bool) -> dict[str, Any]:
    """Options of every `from_pretrained`; only a hub id may use the network."""
    return {"trust_remote_code": trust_remote_code, "local_files_only": source.kind != "hub"}


def cannot_load(source: Source, error: Exception) -> InputError:
    """The one-line error for what a library could not open."""
    where = "no such folder, and as a hub id it " if source.kind == "hub" else ""
    return InputError(f"{source.given}: {where}cannot be loaded as a causal language model ({one_line(error)})")


def one_line(error: Exception) -> str:
    """What an error says, in one line: its first, and the next if that one only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
