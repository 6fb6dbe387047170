"""What describes a checkpoint besides its weights: the config and the tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from mechinterp.errors import InputError
from mechinterp.models.gguf_config import complete_config, config_in
from mechinterp.models.gguf_header import GgufHeader
from mechinterp.models.gguf_tokenizer import generation_in, tokenizer_in
from mechinterp.models.sources import Source, read_json

# What transformers, peft, tokenizers and safetensors raise for files that are damaged or do not fit, or for a package
# that is missing: classes of their own, built-in ones of every kind, and Exception itself. To be caught around a call
# into these libraries, never around code of this package, whose own faults must show.
LOADING_ERRORS = Exception


def read_config(source: Source, base: Source | None = None, *, trust_remote_code: bool) -> PretrainedConfig:
    """The config of a model; of an adapter, an edit or bare tensors it is that of the base.

    Raises:
        InputError: if it cannot be read, or is of no model that this transformers knows.
    """
    below: Source | None = source
    while below is not None and not below.whole:
        below, base = below.base(None if base is None else base.place), None
    if below is None:  # base() raises where a base is needed, so this is for the type checker
        raise InputError(f"{source.given}: there is no config")
    if below.kind == "model":
        read_json(below.path / "config.json")  # names the file, where transformers says that there is no such model
    header = GgufHeader.read(below.path) if below.kind == "gguf" else None
    options = loading_options(below, trust_remote_code=trust_remote_code)
    try:
        config: PretrainedConfig = (
            AutoConfig.from_pretrained(below.place, **options) if header is None else config_in(header)
        )
    except LOADING_ERRORS as error:
        raise cannot_load(below, error) from error
    if (kind := _not_causal(config)) is not None:
        raise InputError(
            f"{below.given}: {config.model_type} is {kind}, not a causal language model, which is what is measured "
            "here; give a decoder-only one"
        )
    return config if header is None else complete_config(config, header)


def _not_causal(config: PretrainedConfig) -> str | None:
    """What a config is of that is no decoder alone; None for a causal language model, or for code of its own."""
    if config.is_encoder_decoder:
        return "an encoder-decoder model"
    decoder = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not decoder:  # its class is there, but sees what comes after
        return "an encoder"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not hasattr(config, "auto_map"):
        return "another kind of model"
    return None


def read_generation(source: Source) -> GenerationConfig | None:
    """How a local model generates, if a file says so; transformers takes its defaults where it cannot read the file.

    Raises:
        InputError: if it cannot be read.
    """
    if source.kind == "gguf":
        return generation_in(GgufHeader.read(source.path))
    path = source.path / "generation_config.json"
    if source.kind != "model" or not path.is_file():
        return None
    try:
        found: GenerationConfig = GenerationConfig.from_dict(read_json(path))
    except InputError:
        raise
    except LOADING_ERRORS as error:
        raise InputError(f"{path}: not the settings of generation ({one_line(error)})") from error
    return found


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
    header = GgufHeader.read(held.path) if held.kind == "gguf" else None
    options = {"config": config, **loading_options(held, trust_remote_code=trust_remote_code)}
    try:
        tokenizer: PreTrainedTokenizerBase = (
            AutoTokenizer.from_pretrained(held.place, **options) if header is None else tokenizer_in(header)
        )
        ids = tokenizer("a text")["input_ids"]  # some settings are looked at when they are used
    except LOADING_ERRORS as error:
        raise InputError(f"{held.given}: its tokenizer cannot be read ({one_line(error)})") from error
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and ids and max(ids) >= rows:
        raise InputError(
            f"{held.given}: its tokenizer gives the id {max(ids)}, the model has rows for {rows}; give the files of "
            "the model's own tokenizer, or add the rows (resize_token_embeddings)"
        )
    return tokenizer


def loading_options(source: Source, *, trust_remote_code: bool) -> dict[str, Any]:
    """Options of every `from_pretrained`; only a hub id may use the network."""
    return {"trust_remote_code": trust_remote_code, "local_files_only": source.kind != "hub"}


def cannot_load(source: Source, error: Exception) -> InputError:
    """The one-line error for what a library could not open."""
    where = "no such folder, and as a hub id it " if source.kind == "hub" else ""
    remedy = ""
    if isinstance(error, ImportError):
        remedy = "; install the package, or take the setting that needs it out of config.json"
    return InputError(f"{source.given}: {where}cannot be loaded as a causal language model ({one_line(error)}){remedy}")


def one_line(error: Exception) -> str:
    """What an error says, in one line: its first, and the next if that one only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, KeyError):
        lines[0] = f"no {lines[0]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
