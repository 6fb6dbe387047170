"""Other ways to the means that `record` gives: what recording.py measures it against.

Each takes what its user would have at hand and gives the mean of h_down over the prompts' last tokens, so that the ways
can be shown to agree before they are timed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import Batch, pad
from mechinterp.models.text.tokens import encode

Means = dict[str, Float[Tensor, " d_mlp"]]


class _UpToSecondMatrix(nn.Module):
    """A Mistral block up to what flows into its MLP's second matrix."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended, _ = self.block.self_attn(hidden_states=self.block.input_layernorm(hidden_states), **kwargs)
        normed = self.block.post_attention_layernorm(hidden_states + attended)
        mlp = self.block.mlp
        return mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed)


@dataclass(frozen=True)
class CutOff:
    """A Mistral model that ends where a block's h_down is made: its output, and nothing past it is computed."""

    part: Any

    @classmethod
    def at(cls, checkpoint: Checkpoint, block: int) -> CutOff:
        """Cut a checkpoint's model off; the weights are shared, the model itself is left alone."""
        whole = checkpoint.model.model
        part = copy.copy(whole)
        part._modules = dict(whole._modules)
        part.layers = nn.ModuleList([*whole.layers[:block], _UpToSecondMatrix(whole.layers[block])])
        part.norm = nn.Identity()
        return cls(part.eval())

    @torch.no_grad()
    def run(self, batch: Batch) -> Float[Tensor, "batch pos d_mlp"]:
        """One bare forward pass."""
        return self.part(**batch.inputs(), use_cache=False).last_hidden_state

    def run_all(self, batches: Sequence[Batch]) -> None:
        """Bare forward passes, for the time they take."""
        for batch in batches:
            self.run(batch)

    def mean(self, batches: Sequence[Batch]) -> Float[Tensor, " d_mlp"]:
        """Mean over the last token of every sequence."""
        return torch.cat([last_token(self.run(batch), batch) for batch in batches]).mean(0).cpu()


def last_token(values: Float[Tensor, "batch pos d"], batch: Batch) -> Float[Tensor, "batch d"]:
    """The values at the last token of every sequence (padding is on the right), in float64."""
    last = batch.attention_mask.sum(1) - 1
    return values[torch.arange(len(last), device=values.device), last].double()


def prepare(checkpoint: Checkpoint, prompts: Sequence[str], orders: Sequence[Sequence[int]]) -> list[Batch]:
    """The prompts tokenised and padded into these batches, on the model's device."""
    tokenizer = checkpoint.tokenizer
    sequences = encode(tokenizer, prompts, max_length=checkpoint.names.context_length)
    pad_id = checkpoint.padding_id
    return [pad([sequences[i] for i in order], pad_id=pad_id, device=checkpoint.device) for order in orders]


def in_given_order(checkpoint: Checkpoint, prompts: Sequence[str], hook: str, size: int) -> Means:
    """The steps of `record` with `size` prompts per batch, in the order they come in."""
    orders = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    total = torch.zeros(checkpoint.model.config.intermediate_size, dtype=torch.float64, device=checkpoint.device)
    batches = prepare(checkpoint, prompts, orders)
    current = batches[0]

    def see(_: str, values: Tensor) -> None:
        total.add_(last_token(values, current).sum(0))

    with watching(checkpoint.model, [checkpoint.names.site(hook)], see):
        for batch in batches:
            current = batch
            run_until_seen(checkpoint.model, **batch.inputs())
    return {hook: total.cpu() / len(prompts)}


@dataclass(frozen=True)
class Lens:
    """TransformerLens on the same weights."""

    bridge: Any
    tokenizer: Any

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Lens:
        """A bridge over modules of its own (it replaces some) that hold the checkpoint's parameters."""
        from transformer_lens.model_bridge import TransformerBridge

        model = checkpoint.model
        modules = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
        bridge = TransformerBridge.boot_transformers(
            "random", hf_model=modules, tokenizer=copy.deepcopy(checkpoint.tokenizer), dtype=model.dtype
        )
        return cls(bridge, checkpoint.tokenizer)

    def means(self, prompts: Sequence[str], hooks: Sequence[str], *, size: int = 16, **options: Any) -> Means:
        """Means over last tokens from `run_with_cache`: batches in the given order, padded, with their mask.

        Args:
            prompts: texts.
            hooks: hook points to average, under TransformerLens's names.
            size: prompts per batch.
            options: for `run_with_cache`: `names_filter`, `stop_at_layer`.
        """
        sums: Means = {}
        for start in range(0, len(prompts), size):
            tokens = self.tokenizer(list(prompts[start : start + size]), padding=True, return_tensors="pt")
            ids, mask = (tokens[name].to(self.bridge.cfg.device) for name in ("input_ids", "attention_mask"))
            with torch.no_grad():
                _, cache = self.bridge.run_with_cache(ids, attention_mask=mask, **options)
            rows = torch.arange(len(ids), device=ids.device)
            for hook in hooks:
                sums[hook] = sums.get(hook, 0) + cache[hook][rows, mask.sum(1) - 1].double().sum(0)
            del cache  # before the next is filled: a cache of everything is large
        return {hook: total.cpu() / len(prompts) for hook, total in sums.items()}


def check_same(ways: Mapping[str, Callable[[], Means]], tolerance: float) -> None:
    """Stop unless all ways give the same means: only then are they worth timing against each other.

    Args:
        ways: the means of at least one hook point by each; those that the first one has too are compared.
        tolerance: largest distance from the first one's, as a share of its norm.

    Raises:
        RuntimeError: naming the way that is off.
    """
    (first, expected), *others = [(name, way()) for name, way in ways.items()]
    for name, found in others:
        for hook in found.keys() & expected.keys():
            off = float((found[hook] - expected[hook]).norm() / expected[hook].norm())
            if not off <= tolerance:  # a NaN is off too
                raise RuntimeError(f"{name} and {first} differ by {off:.2g} of the norm at {hook}")
