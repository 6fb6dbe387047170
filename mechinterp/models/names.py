"""Where a hook point lives in a model: TransformerLens names translated to the model's own modules.

TransformerLens names every point of a forward pass (`blocks.3.mlp.hook_post`) and its architecture adapters translate
component names (`blocks.3.mlp.out`) to the modules of over a hundred architectures (`model.layers.3.mlp.down_proj`).
This file is the only one that knows about either; there is no table of model classes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from mechinterp.errors import InputError
from mechinterp.models.descriptions import LOADING_ERRORS, one_line
from mechinterp.models.skeletons import Described, skeleton_of

Side = Literal["input", "output"]

_BLOCK = re.compile(r"blocks\.(\d+)(?:\.(.+))?$")


@dataclass(frozen=True)
class HookSite:
    """One hook point, found: the module and which side of it carries the tensor."""

    name: str
    module: str
    side: Side


def h_down(block: int) -> str:
    """Name of what flows into the MLP's second matrix, [batch, pos, d_mlp]: the activations of the toxic region."""
    return f"blocks.{block}.mlp.hook_post"


def h_mid(block: int) -> str:
    """Name of the residual stream between attention and MLP, [batch, pos, d_model]."""
    return f"blocks.{block}.hook_resid_mid"


def resid_pre(block: int) -> str:
    """Name of the residual stream before a block, [batch, pos, d_model]; the embedding for the first one."""
    return f"blocks.{block}.hook_resid_pre"


def resid_post(block: int) -> str:
    """Name of the residual stream after a block, [batch, pos, d_model]; before the final norm for the last one."""
    return f"blocks.{block}.hook_resid_post"


def attn_out(block: int) -> str:
    """Name of what a block's attention adds to the residual stream, [batch, pos, d_model]."""
    return f"blocks.{block}.hook_attn_out"


def mlp_out(block: int) -> str:
    """Name of what a block's MLP adds to the residual stream, [batch, pos, d_model]."""
    return f"blocks.{block}.hook_mlp_out"


@dataclass(frozen=True)
class HookNames:
    """Translator between TransformerLens names and the modules of one architecture, built from its config alone."""

    config: PretrainedConfig
    source: str = "model"
    trust_remote_code: bool = False

    @cached_property
    def _described(self) -> Described:
        return Described.of(self.config, self.trust_remote_code)

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The model without a byte of weights: module classes, names and shapes; shared, so it is only read."""
        try:
            return skeleton_of(self._described)
        except LOADING_ERRORS as error:
            raise InputError(f"{self.source}: no model can be built of its config ({one_line(error)})") from error

    @cached_property
    def _adapter(self) -> Any:
        architecture = type(self.skeleton).__name__
        try:
            return _adapter_of(self._described, architecture, self.source)
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{self.source}: TransformerLens has no adapter for {architecture} ({error})") from error

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return dict(self.skeleton.named_modules())

    @cached_property
    def n_blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.config.get_text_config().num_hidden_layers)

    @cached_property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.get_text_config().hidden_size)

    @cached_property
    def context_length(self) -> int:
        """Longest sequence the model was built for, in tokens."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", None) or 2**31 - 1)

    @cached_property
    def short_context(self) -> int | None:
        """Length up to which positions are encoded in another way than in longer sequences; None if in one way only.

        An architecture with two ways (Phi-3's longrope) chooses by the longest sequence of a batch, so that what a
        short one computes would depend on its company.
        """
        config = self.config.get_text_config()
        scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        if scaling.get("rope_type", scaling.get("type")) != "longrope":
            return None
        original = scaling.get("original_max_position_embeddings")
        return original or getattr(config, "original_max_position_embeddings", None) or self.context_length

    def check_block(self, block: int) -> int:
        """Return `block` if the model has it, else raise `InputError`."""
        if not 0 <= block < self.n_blocks:
            raise InputError(
                f"{self.source}: block {block} is out of range, the model has blocks 0 to {self.n_blocks - 1}"
            )
        return block

    def module(self, component: str) -> str:
        """Translate a component (`blocks.3.mlp.out`, `ln_final`, `unembed`) to the model's own module path.

        Raises:
            InputError: if the architecture has no such component, with what that means for the measurement.
        """
        if match := _BLOCK.match(component):
            self.check_block(int(match[1]))
        try:
            path: str = self._adapter.translate_transformer_lens_path(component)
        except ValueError as error:
            path, reason = "(none)", str(error)
        else:
            reason = f"{path} is not one module of it"
        if path not in self._modules:
            hint = ""
            if component.endswith("mlp.out"):
                hint = (
                    "; mixture-of-experts blocks have no single value matrix W_V, so no region toxicity exists for them"
                )
            elif component.endswith("ln2"):
                hint = "; blocks with parallel attention and MLP have no residual stream between the two"
            elif parts := self._parts(path.rpartition(".")[0]):
                hint = f"; packed into another or absent, the parts there are {', '.join(parts)}"
            raise InputError(f"{self.source}: {type(self.skeleton).__name__} has no `{component}` ({reason}){hint}")
        return path

    def _parts(self, path: str) -> list[str]:
        """Names of the modules with parameters directly below one."""
        if path not in self._modules:
            return []
        return [name for name, child in self._modules[path].named_children() if any(True for _ in child.parameters())]

    def has(self, component: str) -> bool:
        """Whether the architecture has this component."""
        try:
            self.module(component)
        except InputError:
            return False
        return True

    def site(self, hook: str) -> HookSite:
        """Find a hook point.

        Args:
            hook: `blocks.{l}.mlp.hook_post`, `blocks.{l}.hook_resid_pre|mid|post`, `blocks.{l}.hook_mlp_out`,
                `blocks.{l}.hook_attn_out`, or `<component>.hook_in` / `<component>.hook_out` for any component.
                `hook_mlp_out` and `hook_attn_out` are what is added to the residual stream: where an architecture
                (Gemma) normalises once more before adding, they are the output of that norm, and the MLP's own output
                is `blocks.{l}.mlp.out.hook_out`.
        """
        component, _, point = hook.rpartition(".")
        match = _BLOCK.match(component)
        if point in ("hook_in", "hook_out"):
            return HookSite(hook, self.module(component), "input" if point == "hook_in" else "output")
        if match and match[2] == "mlp" and point == "hook_post":
            return HookSite(hook, self.module(f"{component}.out"), "input")
        if match and match[2] is None:
            if point == "hook_resid_mid":
                return HookSite(hook, self.module(f"{component}.ln2"), "input")
            if point in ("hook_resid_pre", "hook_resid_post"):
                return HookSite(hook, self.module(component), "input" if point == "hook_resid_pre" else "output")
            if point == "hook_mlp_out":
                last = "ln2_post" if self.has(f"{component}.ln2_post") else "mlp.out"
                return HookSite(hook, self.module(f"{component}.{last}"), "output")
            if point == "hook_attn_out":
                last = "ln1_post" if self.has(f"{component}.ln1_post") else "attn"
                return HookSite(hook, self.module(f"{component}.{last}"), "output")
        raise InputError(
            f"unknown hook point {hook!r}: use blocks.N.mlp.hook_post, blocks.N.hook_resid_pre/mid/post, "
            "blocks.N.hook_mlp_out, blocks.N.hook_attn_out, or COMPONENT.hook_in/hook_out"
        )

    def value_parameter(self, block: int) -> tuple[str, bool]:
        """Name of the parameter W_V of a block, and whether it is stored as [d_model, d_mlp] (to be transposed)."""
        path = self.module(f"blocks.{block}.mlp.out")
        return f"{path}.weight", isinstance(self._modules[path], nn.Linear)

    def value_bias_parameter(self, block: int) -> str | None:
        """Name of the bias of the MLP's second matrix, None where the architecture has none."""
        path = self.module(f"blocks.{block}.mlp.out")
        return f"{path}.bias" if getattr(self._modules[path], "bias", None) is not None else None

    def component(self, parameter: str) -> tuple[int | None, str]:
        """Block and TransformerLens component of a parameter, the inverse of `module`.

        Args:
            parameter: the model's own name, `model.layers.3.mlp.down_proj.weight`.

        Returns:
            (3, "mlp.out"); the block is None outside the blocks ("embed", "ln_final"). What an architecture has below
            its components keeps its own name there ("mlp.experts.down_proj", "mlp.gate_up_proj"), and so does
            everything of an architecture that TransformerLens has no adapter for.
        """
        parts = parameter.split(".")
        if len(parts) > 1 and parts[-1] in ("weight", "bias"):
            parts.pop()
        blocks, known = self._component_paths
        block, inside = None, parts
        if blocks and parts[: len(blocks)] == list(blocks) and len(parts) > len(blocks):
            block, inside = int(parts[len(blocks)]), parts[len(blocks) + 1 :]
        for cut in range(len(inside), 0, -1):
            if name := known.get((block is not None, ".".join(inside[:cut]))):
                return block, ".".join([name, *inside[cut:]])
        return block, ".".join(inside)

    @cached_property
    def _component_paths(self) -> tuple[tuple[str, ...], dict[tuple[bool, str], str]]:
        """Path of the list of blocks, and the component at every path: (inside a block, path there) -> component."""
        lists = (path for path, module in self._modules.items() if isinstance(module, nn.ModuleList))
        try:
            components = self._adapter.get_component_mapping()
            blocks = str(self._adapter.translate_transformer_lens_path("blocks.0")).removesuffix(".0")
        except InputError:
            return tuple(next(lists, "").split(".")), {}
        known = {}
        for name in _component_names(components):
            try:
                path = str(self._adapter.translate_transformer_lens_path(name.replace("blocks.", "blocks.0.", 1)))
            except ValueError:  # no module of its own: OPT's `mlp`
                continue
            known[name.startswith("blocks."), path.removeprefix(f"{blocks}.0.")] = name.removeprefix("blocks.")
        return tuple(blocks.split(".")), known


@lru_cache(maxsize=32)
def _adapter_of(described: Described, architecture: str, source: str) -> Any:
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    bridge = build_bridge_config_from_hf(described.config, architecture, source, torch.float32)
    return ArchitectureAdapterFactory.select_architecture_adapter(bridge)


def _component_names(components: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, component in components.items():
        if above or name != "blocks":
            yield f"{above}{name}"
        yield from _component_names(getattr(component, "submodules", None) or {}, f"{above}{name}.")
