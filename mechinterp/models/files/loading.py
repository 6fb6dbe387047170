"""Building a model in memory from what a source holds: a whole model, bare tensors, or an adapter on a base.

Weights are read from safetensors, or from pickled files with `weights_only=True`, which runs no code. Every library's
failure becomes one `InputError`. What does not fit is refused, not filled in: a weight that is missing is never random.
"""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.models.descriptions import LOADING_ERRORS, cannot_load, loading_options, one_line, read_generation
from mechinterp.models.files.stored_names import harmless, unused
from mechinterp.models.files.tensor_files import TensorFiles, open_file
from mechinterp.models.files.weights import LazyWeights, is_code
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source, first_few, read_json

if TYPE_CHECKING:
    from peft import PeftModel

DTYPES = ("auto", "float32", "bfloat16", "float16")
_ADAPTED = re.compile(r"base_model\.model\.(.+?)\.lora_")


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is to be loaded.

    Attributes:
        dtype: one of `DTYPES`; but for `auto` every parameter ends in that type.
        device: where it goes; ignored with `device_map`.
        device_map: `auto` to spread a model over devices with accelerate.
        trust_remote_code: run code that comes with the checkpoint.
    """

    dtype: str
    device: torch.device
    device_map: str | None
    trust_remote_code: bool


def load_whole(source: Source, config: PretrainedConfig, options: LoadingOptions) -> PreTrainedModel:
    """Load a model folder or a hub id.

    Raises:
        InputError: if anything is missing, damaged, or does not fit.
    """
    check_files(source, config, trust_remote_code=options.trust_remote_code)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.place,
            config=_dequantising(config),
            dtype="auto" if options.dtype == "auto" else getattr(torch, options.dtype),
            device_map=options.device_map,
            output_loading_info=True,
            **loading_options(source, trust_remote_code=options.trust_remote_code),
        )
    except LOADING_ERRORS as error:
        raise cannot_load(source, error) from error
    if getattr(model, "_hf_peft_config_loaded", False):  # transformers would run it unmerged
        raise InputError(f"{source.given}: an adapter on the hub; download it and open its folder")
    return _finished(source, model, loading, options)


def _dequantising(config: PretrainedConfig) -> PretrainedConfig:
    """A copy of a config that has codes turned into weights, where its quantiser can; on every device alike."""
    config = copy.deepcopy(config)
    settings = getattr(config, "quantization_config", None)
    if isinstance(settings, dict):
        kind = AUTO_QUANTIZATION_CONFIG_MAPPING.get(str(settings.get("quant_method")))
        if kind is not None and "dequantize" in inspect.signature(kind).parameters:
            settings["dequantize"] = True
    return config


@dataclass(frozen=True)
class _Unread:
    """A tensor that is read when transformers asks for it, so that one at a time is held beside the model."""

    weights: LazyWeights
    name: str

    def __getitem__(self, _: object) -> torch.Tensor:
        return self.weights.tensor(self.name)


def load_tensors(
    source: Source, base: Source | None, config: PretrainedConfig, options: LoadingOptions
) -> PreTrainedModel:
    """Load a GGUF file, or a state-dict file into the architecture of its base; no weight is the base's.

    Of a GGUF file this makes an ordinary model in float32, which knows nothing of codes and can be trained and saved.

    Args:
        source: the file.
        base: what says how a state-dict file's model generates.
        config: of the architecture.
        options: how it is to be loaded.

    Raises:
        InputError: if anything is missing, unknown, damaged, or has another shape.
    """
    weights = LazyWeights.of(source, config, options.trust_remote_code)
    state: dict[str, Any] = {name: weights.files.tensor(name) for name in weights.files.names if source.kind != "gguf"}
    if source.kind == "gguf":
        state = {name: _Unread(weights, name) for name in weights.stored.recipes}
    try:
        model, loading = type(weights.names.skeleton).from_pretrained(
            None,
            config=weights.names.config,
            state_dict=state,
            dtype=weights.main_dtype if options.dtype == "auto" else getattr(torch, options.dtype),
            device_map=options.device_map,
            output_loading_info=True,
        )
    except LOADING_ERRORS as error:
        raise cannot_load(source, error) from error
    if (generation := read_generation(base or source)) is not None:
        model.generation_config = generation
    return _finished(source, model, loading, options)


def _finished(
    source: Source, model: PreTrainedModel, loading: Mapping[str, set[str]], options: LoadingOptions
) -> PreTrainedModel:
    if missing := loading["missing_keys"]:
        raise InputError(
            f"{source.given}: {many(len(missing), 'weight is', 'weights are')} missing from the files "
            f"({first_few(missing)})"
        )
    if unknown := [name for name in loading["unexpected_keys"] if not harmless(name)]:
        raise InputError(f"{source.given}: of its tensors, {'; '.join(unused(unknown, type(model).__name__))}")
    if codes := [name for name, parameter in model.named_parameters() if is_code(parameter.dtype)]:
        raise InputError(
            f"{source.given}: {many(len(codes), 'weight is', 'weights are')} a quantiser's codes "
            f"({first_few(codes)}), in which nothing can be measured; save the model dequantised"
        )
    if away := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise InputError(
            f"{source.given}: {many(len(away), 'weight was', 'weights were')} not put on a device but offloaded "
            f"({first_few(away)}); use more or larger devices, or a narrower `dtype`"
        )
    if options.device_map is None:
        model.to(options.device)
    if options.dtype != "auto":  # some classes keep some parameters in float32
        _cast(model, dict.fromkeys(dict(model.named_parameters()), getattr(torch, options.dtype)))
    return model.eval()


def check_files(source: Source, config: PretrainedConfig, *, trust_remote_code: bool) -> None:
    """Look at the files of a local model folder before they are loaded, so that an error can name the one at fault.

    Raises:
        InputError: if one is missing or damaged, or the names and shapes are not those of the architecture.
    """
    if source.kind == "hub":
        return
    read_generation(source)
    if getattr(config, "quantization_config", None) is not None:  # stored under names of the quantiser's own
        TensorFiles.open(source, HookNames(config, source.given, trust_remote_code))
    else:
        LazyWeights.of(source, config, trust_remote_code)


def check_adapter(adapter: Source, model: PreTrainedModel) -> None:
    """Look at an adapter before it is merged: that its file is whole, fits the model, and that all of it is used.

    Args:
        adapter: the adapter's folder.
        model: the base, or its skeleton; left as it is.

    Raises:
        InputError: if the file is missing or damaged, or holds what the model has no place for.
    """
    names = list(open_file(adapter.weight_files()[0]).names())
    changed = {match[1].removesuffix(".base_layer") for name in names if (match := _ADAPTED.match(name))}
    # Not each of them: peft renames some that an older transformers called otherwise.
    if changed and changed.isdisjoint(dict(model.named_modules())):
        raise InputError(
            f"{adapter.given}: made for another architecture, it changes modules that {type(model).__name__} lacks "
            f"({first_few(changed)})"
        )
    settings = read_json(adapter.path / "adapter_config.json")
    for setting in ("rank_pattern", "alpha_pattern"):
        patterns = settings.get(setting) or {}
        if not isinstance(patterns, dict):
            raise InputError(f"{adapter.given}: {setting} in its adapter_config.json is a {type(patterns).__name__}")
        if idle := [key for key in patterns if not any(_matches(key, module) for module in changed)]:
            raise InputError(
                f"{adapter.given}: {setting} in its adapter_config.json names no module that it changes "
                f"({first_few(idle)}); mend it, or remove the entry"
            )
    begun = settings.get("init_lora_weights", True)
    reads_weights = settings.get("use_dora") or begun not in (True, False, "gaussian")  # of which a skeleton has none
    if model.device.type == "meta" and not reads_weights:
        _wrapped(copy.deepcopy(model), adapter, low_cpu_mem_usage=True)


def _matches(pattern: str, module: str) -> bool:
    """Whether peft takes a pattern to mean a module."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error:
        return False


def _wrapped(model: PreTrainedModel, adapter: Source, **options: Any) -> PeftModel:
    """The model with an adapter beside its weights, each part of which has its place.

    Raises:
        InputError: if the adapter does not fit the model, or is of a kind that cannot be merged.
    """
    from peft import PeftConfig, PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about how peft calls it
            # peft only warns of two things that would make it another model: parts of the adapter are random, ...
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # ... or it changes one of two tied matrices, and merging would change both.
            warnings.filterwarnings("error", message="Model with `tie_word_embeddings=True`")
            settings = PeftConfig.from_pretrained(adapter.place)
            if settings.is_prompt_learning:  # which has other modules, and other names in its file
                raise InputError(
                    f"{adapter.given}: an adapter of type {settings.peft_type.value} cannot be merged into the weights"
                )
            device = "cpu" if model.device.type == "meta" else str(model.device)
            wrapped = PeftModel.from_pretrained(model, adapter.place, torch_device=device, **options)
            found = wrapped.load_adapter(adapter.place, "default", torch_device=device, **options)  # says what is left
    except InputError:
        raise
    except LOADING_ERRORS as error:
        raise InputError(f"{adapter.given}: cannot be merged into its base ({one_line(error)})") from error
    if unused := found.unexpected_keys:
        raise InputError(
            f"{adapter.given}: {len(unused)} of its tensors would be left out, as its adapter_config.json names no "
            f"module for them ({first_few(name.replace('.default.', '.') for name in unused)}); name it there "
            "(target_modules, modules_to_save, bias), or remove the tensors"
        )
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        kind = wrapped.peft_config["default"].peft_type.value
        raise InputError(f"{adapter.given}: an adapter of type {kind} cannot be merged into the weights")
    return wrapped


def with_adapter(model: PreTrainedModel, adapter: Source) -> PeftModel:
    """A model with an adapter beside its weights; the model given is the one inside, and changed.

    Raises:
        InputError: if the adapter does not fit the model, or is of a kind that cannot be merged.
    """
    check_adapter(adapter, model)
    return _wrapped(model, adapter)


def merge_adapter(model: PreTrainedModel, adapter: Source) -> PreTrainedModel:
    """Merge a peft adapter into a model, in memory; what remains is the plain architecture, in the types it had.

    Raises:
        InputError: if the adapter does not fit the model, or is of a kind that cannot be merged.
    """
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    wrapped = with_adapter(model, adapter)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("error", message="Model with `tie_word_embeddings=True`")
            merged: PreTrainedModel = wrapped.base_model.merge_and_unload(safe_merge=True)
    except LOADING_ERRORS as error:
        raise InputError(f"{adapter.given}: cannot be merged into its base ({one_line(error)})") from error
    if vars(merged).get("peft_config"):
        del merged.peft_config
    if left := {name for name, _ in merged.named_parameters()} ^ dtypes.keys():
        raise InputError(f"{adapter.given}: merging left other parameters than the base has ({first_few(left)})")
    _cast(merged, dtypes)
    return merged.requires_grad_(True).eval()


def _cast(model: PreTrainedModel, dtypes: dict[str, torch.dtype]) -> None:
    """Give parameters their types; buffers, as the rotary frequencies, keep theirs."""
    for name, parameter in model.named_parameters():
        if parameter.dtype != dtypes[name] and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtypes[name])
