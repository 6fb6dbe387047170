"""What every writer of a graph adds to the residual stream, and passes that give it.

    z_input = the stream before block 0,   z_head = its slice of what enters the output matrix, times its rows of that
    matrix (without the matrix's bias),    z_mlp = what the MLP gives, with its bias

All three are linear in what plain hooks see, so the difference of two runs' writes is that of what they saw. (The
stream before block 0 is the token embedding and whatever is the same in both prompts, such as learnt positions: it
cancels.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.audit.circuits.batches import PairBatch
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.projections import wide_type
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import evaluating, watching
from mechinterp.models.text.batches import Batch
from mechinterp.models.unembedding import unembedded_at

Values = Mapping[str, Float[Tensor, "text pos d"]]
"""What was seen at the sites of `Places.written`, by their names."""


@dataclass(frozen=True)
class Ends:
    """A model on the clean and on the corrupted prompts of a batch, unchanged.

    Attributes:
        clean, corrupted: what was seen.
        clean_metric, corrupted_metric: of every pair.
    """

    clean: Values
    corrupted: Values
    clean_metric: Float[Tensor, " pair"]
    corrupted_metric: Float[Tensor, " pair"]

    @classmethod
    @torch.no_grad()
    def of(cls, checkpoint: Checkpoint, places: Places, batch: PairBatch) -> Ends:
        """One pass over both prompts of every pair."""
        seen: dict[str, Tensor] = {}
        with evaluating(places.model), watching(places.model, places.written(), seen.__setitem__, stop=False):
            logits = last_logits(checkpoint, batch.both)
        pairs, width = batch.shape
        whole = {name: value.reshape(2 * pairs, width, -1) for name, value in seen.items()}
        clean, corrupted = ({name: value[rows] for name, value in whole.items()} for rows in _halves(pairs))
        return cls(clean, corrupted, *(batch.metric(logits[rows]).double().cpu() for rows in _halves(pairs)))

    def difference(self, places: Places, columns: slice) -> Float[Tensor, "writer pair pos d_model"]:
        """What every writer writes on the corrupted prompt less what it writes on the clean one."""
        wide = wide_type(self.clean["input"].dtype)
        between = {name: self.corrupted[name].to(wide) - value.to(wide) for name, value in self.clean.items()}
        return written(places, between, columns)


def last_logits(checkpoint: Checkpoint, batch: Batch) -> Float[Tensor, "text vocabulary"]:
    """The logits at the last token of every prompt, from a pass of the whole model."""
    rows, columns = list(range(len(batch.lengths))), [length - 1 for length in batch.lengths]
    with reading(batch), unembedded_at(checkpoint, rows, columns, int(batch.input_ids.shape[1])):
        found: Tensor = checkpoint.model(**batch.inputs(), use_cache=False).logits[0]
    return found


def written(places: Places, values: Values, columns: slice) -> Float[Tensor, "writer text pos d_model"]:
    """What every writer writes at some columns, in float32 or better, on the device of the first block."""
    graph, first = places.graph, values["input"]
    wide, part = wide_type(first.dtype), first[:, columns]
    found = torch.empty(len(graph.writers), *part.shape, dtype=wide, device=first.device)
    found[0] = part
    for block in range(graph.blocks):
        start = graph.head(block)
        own = values[f"heads{block}"][:, columns]
        found[start : start + graph.heads] = heads_written(places, block, own).to(found.device)
        found[start + graph.heads] = values[f"mlp{block}"][:, columns].to(found)
    return found


def heads_written(
    places: Places, block: int, inflow: Float[Tensor, "text pos d_heads"]
) -> Float[Tensor, "head text pos d_model"]:
    """What the heads of a block write, from what enters its output matrix."""
    rows = places.out_rows(block, wide_type(inflow.dtype))
    by_head = inflow.to(rows.dtype).unflatten(-1, (places.graph.heads, -1))
    return torch.einsum("bthw,hwd->hbtd", by_head, rows)


@contextmanager
def starting_from(places: Places, stream: Float[Tensor, "text pos d_model"]) -> Iterator[None]:
    """For the time of the context the first block gets this stream instead of the embedding."""

    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return with_first(args, kwargs, stream)

    handle = None
    try:
        handle = places.module(places.first).register_forward_pre_hook(hook, with_kwargs=True)
        yield
    finally:
        if handle is not None:
            handle.remove()


def with_first(args: Any, kwargs: dict[str, Any], value: Tensor) -> tuple[Any, dict[str, Any]]:
    """A call's arguments with another first one."""
    return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": value})


def _halves(pairs: int) -> tuple[slice, slice]:
    return slice(pairs), slice(pairs, None)
