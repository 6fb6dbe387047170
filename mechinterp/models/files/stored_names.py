"""Which stored tensors make up each parameter of a model: the names in files, translated to the model's own.

Files of one architecture differ in their names (GPT-2's often lack `transformer.`, GPT-NeoX's say `embed_out` where
the model says `lm_head`), and some layers are stored in pieces (one matrix per expert). The rules are transformers'
own, the very ones that `from_pretrained` applies; here they are applied to names alone, so that single tensors can be
read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    WeightTransform,
    dot_natural_key,
    rename_source_key,
)

from mechinterp.models.sources import first_few

# Buffers that old versions stored and that are no weights: causal masks, rotary frequencies, positions, and what
# torch keeps beside a module.
_BUFFERS = re.compile(
    r"(^|\.)(attn|attention)\.(masked_)?bias$|rotary_\w+\.(inv_freq|cos_cached|sin_cached)$|(^|\.)position_ids$"
    r"|(^|[._])extra_state$"
)
# What quantisers store beside their codes (fp8, bitsandbytes, GPTQ, AWQ, compressed-tensors, quanto, ...).
_OF_QUANTISER = re.compile(
    r"[._](scales?|scale_inv|zeros?|zero_point|qweight|qzeros|g_idx|absmax|quant_map|SCB|weight_format|weight_packed"
    r"|weight_shape|codebooks?|codes)$|[._]quant_state\.|[._]nested_(absmax|quant_map)$|\.(weight|bias)\._(data|scale)$"
)


def harmless(name: str) -> bool:
    """Whether a stored tensor that a model has no use for is a buffer, so that nothing is lost with it."""
    return _BUFFERS.search(name) is not None


def unused(names: Collection[str], architecture: str) -> tuple[str, str]:
    """What is wrong with tensors that a model has no use for, and what to do about it."""
    if codes := [name for name in names if _OF_QUANTISER.search(name)]:
        fault = f"{len(codes)} belong to a quantiser ({first_few(codes)}), without which the weights are codes"
        return fault, "save the model dequantised"
    fault = f"{len(names)} are unknown to {architecture} ({first_few(names)})"
    if any("lora_" in name or ".base_layer." in name for name in names):
        return fault, "merge the adapter into its base first"
    return fault, "what a model has no use for is in none of its numbers: mend config.json, or remove these tensors"


@dataclass(frozen=True)
class Recipe:
    """How parameters come from stored tensors.

    Attributes:
        target: the model's own name of the (first) parameter made.
        stored: (stored name, pattern of the converter that it matched), in the order in which they are joined.
        converter: what joins or splits them; None if the one stored tensor is the parameter.
    """

    target: str
    stored: tuple[tuple[str, str], ...]
    converter: WeightConverter | None

    def make(self, read: Callable[[str], Tensor], skeleton: PreTrainedModel) -> dict[str, Tensor]:
        """The parameters, by the model's own names."""
        if self.converter is None:
            return {self.target: read(self.stored[0][0])}
        converter = deepcopy(self.converter)
        for name, pattern in self.stored:
            converter.add_tensor(self.target, name, pattern, read(name))
        made = converter.convert(self.target, model=skeleton, config=skeleton.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all parameters made."""
        if self.converter is None:
            return (self.target,)
        first, *_ = patterns = self.converter.target_patterns
        return tuple(self.target.replace(first, pattern) for pattern in patterns)


@dataclass(frozen=True)
class StoredNames:
    """The translation for one model and one set of stored names.

    Attributes:
        recipes: the model's own name (aliases of tied parameters and buffers too) -> how it is made.
        aliases: the model's parameter names, each with all names of the same (tied) parameter, its own first.
        missing: parameters that no stored tensor gives under any of their names, and
        unexpected: stored names that the model has no use for; both but for those that its class says to ignore, and
            the buffers that every version of a model computes for itself (`harmless`).
    """

    recipes: Mapping[str, Recipe]
    aliases: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @classmethod
    def translate(
        cls, skeleton: PreTrainedModel, stored: Iterable[str], rules: Sequence[WeightTransform] | None = None
    ) -> StoredNames:
        """Apply transformers' rules to stored names: those of the model, or others that are given."""
        rules = get_model_conversion_mapping(skeleton) if rules is None else rules
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        own = skeleton.state_dict()
        prefix = skeleton.base_model_prefix
        made: dict[str, list[tuple[str, str | None]]] = {}
        unexpected = set()
        for name in sorted(stored, key=dot_natural_key):
            target, pattern = rename_source_key(name, renamings, converters, prefix, own)
            if target not in own and name in own:
                target, pattern = rename_source_key(name, [], [], prefix, own)
            if target in own:
                made.setdefault(target, []).append((name, pattern))
            else:
                unexpected.add(target)
        recipes = {}
        for target, parts in made.items():
            patterns = [pattern for _, pattern in parts if pattern is not None]
            converter = by_pattern[patterns[0]] if patterns else None
            recipe = Recipe(target, tuple((name, pattern or name) for name, pattern in parts), converter)
            recipes.update(dict.fromkeys(recipe.targets, recipe))
        aliases = _aliases(skeleton)
        missing = {name for name, names in aliases.items() if not any(alias in recipes for alias in names)}
        report = SimpleNamespace(missing_keys=missing, unexpected_keys=unexpected)
        skeleton._adjust_missing_and_unexpected_keys(report)  # buffers that old versions stored, and the like
        useless = sorted(name for name in report.unexpected_keys if not harmless(name))
        return cls(recipes, aliases, tuple(sorted(report.missing_keys)), tuple(useless))


def _aliases(skeleton: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    groups: dict[int, list[str]] = {}
    for name, parameter in skeleton.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return {names[0]: tuple(names) for names in groups.values()}
