"""Activations of one checkpoint inside another, on the same tokens: dynamic patching.

At every pass of the target the source reads the very tokens that the target reads, up to the last wanted hook point,
with a cache of its own while sequences are generated; its values then stand in for the target's. So in generation the
source follows the text that the patched model writes.

Beam search and whatever else reorders or crops a cache between passes is not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from jaxtyping import Int
from torch import Tensor
from transformers import Cache, DynamicCache

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import unlike_models
from mechinterp.models.interventions.changing import Change, changing, units_of, width
from mechinterp.models.names import resid_post
from mechinterp.models.passes.positions import Pass, Selected, Span
from mechinterp.models.passes.sequences import OnDevices
from mechinterp.models.passes.watching import evaluating, nested, run_until_seen, watching

_FED = ("input_ids", "attention_mask", "position_ids", "cache_position", "token_type_ids")
"""What the source is given of the target's inputs."""


@contextmanager
def patch(
    checkpoint: Checkpoint, source: Checkpoint, units: Mapping[str, Int[Tensor, " unit"] | None], *, at: Span = "all"
) -> Iterator[None]:
    """Put a source's activations in the place of the model's own, on the same tokens.

    The source is read as it is at each pass, with the interventions that are active on it. It may be the very model
    that is patched: then it is read with this patch off and all others on.

    Args:
        checkpoint: the target; its weights are not touched.
        source: of the same architecture and size; it stays in memory, on any device.
        units: hook point -> the units there, None for all (`{h_down(3): torch.tensor([5, 7])}`; whole blocks:
            `{resid_post(3): None}`).
        at: the positions. Passes of a generation without any after them are spared the source: patched at
            `prompt_last`, it reads prompts only.

    Memory: of one pass, the source's values at the chosen units and positions; all of h_down at every token is
    batch x pos x d_mlp x blocks, for which a large model wants a smaller `max_tokens`.

    Raises:
        InputError: for unknown hook points, units out of range or a source of another shape or vocabulary; in a pass,
            if it continues sequences that were begun outside of the context.
    """
    _check_source(checkpoint, source)
    chosen = {hook: units_of(indices, width(checkpoint, hook), hook) for hook, indices in units.items()}
    sites = [source.names.site(hook) for hook in units]
    # The first block is run in any case: the length of a cache is told by it.
    stops = sites if not sites else [*sites, source.names.site(resid_post(0))]
    caches: WeakKeyDictionary[Cache, Cache] = WeakKeyDictionary()  # the source's, by the target's
    same = source.model is checkpoint.model
    busy = False

    def begin(this: Pass, selected: Selected) -> Mapping[str, Change]:
        nonlocal busy
        begun = at == "response" and this.inputs.get("past_key_values") is not None
        if busy or (selected.empty and not begun):
            return {}
        taken: dict[str, Tensor] = {}

        def see(hook: str, values: Tensor) -> None:
            if hook in chosen and not selected.empty:
                taken[hook] = _taken(values, selected, chosen[hook])

        busy = True
        try:
            with nested(), watching(source.model, stops, see):
                run_until_seen(source.model, **_inputs(this, source, caches))
        finally:
            busy = False
        return {hook: _given(values, chosen[hook]) for hook, values in taken.items()}

    with nullcontext() if same else evaluating(source.model), changing(checkpoint, chosen, begin, at=at):
        yield


def _taken(values: Tensor, selected: Selected, units: OnDevices | None) -> Tensor:
    rows = selected.take(values)
    return rows if units is None else rows.index_select(1, units.on(rows.device))


def _given(new: Tensor, units: OnDevices | None) -> Change:
    def give(values: Tensor) -> Tensor:
        if units is None:
            return new
        return values.index_copy(1, units.on(values.device), new.to(values))

    return give


def _inputs(this: Pass, source: Checkpoint, caches: WeakKeyDictionary[Cache, Cache]) -> dict[str, Any]:
    """What the source is called with: the target's tokens, and a cache as long as the target's."""
    if this.inputs.get("input_ids") is None:
        raise InputError("patching needs a call with input_ids: the source reads the same tokens")
    fed = {name: this.inputs[name] for name in _FED if this.inputs.get(name) is not None}
    inputs = {name: _to(value, source) for name, value in fed.items()}
    cache = this.inputs.get("past_key_values")
    if cache is None:
        return inputs
    if not this.continues:
        caches[cache] = DynamicCache(config=source.model.config)
    own = caches.get(cache)
    if own is None or own.get_seq_length() != cache.get_seq_length():
        raise InputError(
            "this pass continues sequences that the source has not read from their beginning: enter patch() before "
            "they are begun, and give the first pass the cache too"
        )
    return {**inputs, "past_key_values": own}


def _to(value: Any, source: Checkpoint) -> Any:
    if isinstance(value, Mapping):  # masks by kind of layer
        return {name: _to(one, source) for name, one in value.items()}
    return value.to(source.device) if isinstance(value, Tensor) else value


def _check_source(checkpoint: Checkpoint, source: Checkpoint) -> None:
    differences = list(unlike_models(checkpoint, source))
    if len(checkpoint.tokenizer) != len(source.tokenizer):
        differences.append(f"tokenizers of {len(checkpoint.tokenizer)} and {len(source.tokenizer)} tokens")
    if differences:
        raise InputError(f"{source.source} cannot be patched into {checkpoint.source}: {'; '.join(differences)}")
