"""Pairs of responses through a model in batches: how far apart the two are after every block.

Each pair is padded to its own longer response, as if it were alone; what the batch adds beyond that stands on the
right, where causal attention never looks, so that neighbours change a pair's numbers by rounding only. The distances of
a block are taken as the pass leaves it, and of its states nothing is kept: memory does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.measures.distances import DISTANCES, Distance, pair_distances
from mechinterp.measures.massive import Shares, sinks
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite
from mechinterp.models.passes.sequences import OnDevices
from mechinterp.models.passes.watching import watching
from mechinterp.models.text.batches import length_batches, pad
from mechinterp.models.text.tokens import Encoded

PaddingSide = Literal["left", "right"]
Pair = tuple[Encoded, Encoded]
"""The safe and the unsafe response of an instance."""


def padding_sees_width(checkpoint: Checkpoint) -> bool:
    """Whether padding on the left, which has nothing to attend to, attends to all columns of its batch alike.

    Eager attention (Gemma-2's) masks with a large negative number, and a row with nothing else becomes uniform; SDPA
    and flash attention give zeros. `released` counts such rows, so where this holds, only pairs of one width may share
    a batch.
    """
    config = checkpoint.model.config.get_text_config()
    return getattr(config, "_attn_implementation", None) not in ("sdpa", "flash_attention_2", "flash_attention_3")


def positions_are_relative(checkpoint: Checkpoint) -> bool:
    """Whether a shift of all positions changes rounding only: rotary embeddings, and attention that sees no others.

    Learned positions (GPT-2) are not relative, nor are the bounds of chunked attention; what is not known counts as
    not relative, which costs a second pass.
    """
    config = checkpoint.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    return bool(getattr(config, "rope_parameters", None)) and kinds <= {"full_attention", "sliding_attention"}


def pair_batches(pairs: Sequence[Pair], max_tokens: int, *, apart: int | None, same_width: bool) -> Iterator[list[int]]:
    """Indices of the pairs that share a pass: similar widths, or the same; the widest first."""
    widths = [max(len(text.ids) for text in pair) for pair in pairs]
    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(pairs)), key=lambda i: (-widths[i], i)):
        groups.setdefault(widths[i] if same_width else 0, []).append(i)
    for group in groups.values():
        lengths = [2 * widths[i] for i in group]  # a pair is two rows of a batch
        for order in length_batches(lengths, max_tokens, apart=None if apart is None else 2 * apart):
            yield [group[j] for j in order]


@dataclass(frozen=True)
class PairLayout:
    """A batch of pairs, the safe responses above the unsafe ones.

    Attributes:
        ids: each pair padded to its own width on its side, and all on the right to one width.
        at_left: the same responses, all from column 0.
        tokens: where in `ids` the responses are, [row, pos].
        own: the columns of each pair itself, its padding included, [pair, pos].
        columns: where in `at_left` that stands which is in `ids`, [row, pos]; any column for padding.
        starts: the column of each response's first token in `ids`, [row].
        shifted: whether padding on the left moves any response.
    """

    ids: Int[Tensor, "row pos"]
    at_left: Int[Tensor, "row pos"]
    tokens: OnDevices
    own: OnDevices
    columns: OnDevices
    starts: Int[Tensor, " row"]
    shifted: bool

    @classmethod
    def of(cls, pairs: Sequence[Pair], side: PaddingSide, pad_id: int) -> PairLayout:
        """Lay pairs out as the released code pads them, each alone."""
        batch = pad([safe for safe, _ in pairs] + [unsafe for _, unsafe in pairs], pad_id=pad_id, side="right")
        lengths = batch.attention_mask.sum(1)
        widths = lengths.view(2, -1).amax(0)
        starts = widths.repeat(2) - lengths if side == "left" else torch.zeros_like(lengths)
        places = torch.arange(batch.input_ids.shape[1])
        columns = places - starts[:, None]
        tokens = (columns >= 0) & (columns < lengths[:, None])
        columns = columns.clamp_min(0)
        return cls(
            ids=torch.where(tokens, batch.input_ids.gather(1, columns), pad_id),
            at_left=batch.input_ids,
            tokens=OnDevices(tokens),
            own=OnDevices(places < widths[:, None]),
            columns=OnDevices(columns),
            starts=starts,
            shifted=bool(starts.any()),
        )

    @property
    def padded(self) -> bool:
        """Whether any pair has padding of its own."""
        tokens, own = self.tokens.host, self.own.host
        return bool((own & ~(tokens[: len(own)] & tokens[len(own) :])).any())

    def moved(self, states: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """States of `at_left` in the columns of `ids`; those under padding are any."""
        columns = self.columns.on(states.device)
        return states[torch.arange(len(states), device=states.device)[:, None], columns]


class _Pass:
    """What a pass shows of a batch of pairs: distances after every block, and what sinks make of them.

    A sink is a position at which a massive activation stands after this block or an earlier one.

    Args:
        layout: of the batch.
        looked: where sinks are looked for, [row, pos]: of a distance over padding, there too.
        left_out: sinks that no distance is over, [row, pos].
    """

    def __init__(self, layout: PairLayout, looked: OnDevices, left_out: OnDevices | None = None) -> None:
        self.layout, self.looked, self.left_out = layout, looked, left_out
        self.sinks: Tensor = torch.zeros_like(looked.host)

    def look(self, states: Float[Tensor, "row pos d_model"]) -> None:
        """Look for sinks."""
        new = sinks(states, self.layout.tokens.on(states.device), self.looked.on(states.device))
        self.sinks = self.sinks.to(states.device) | new

    def all_sinks(self) -> OnDevices:
        """Those that were found, but for a response that has no other token: it keeps them."""
        found, tokens = self.sinks.cpu(), self.layout.tokens.host
        return OnDevices(found & ((tokens & ~found).any(1, keepdim=True) | ~tokens))

    def distances(
        self, states: Float[Tensor, "row pos d_model"], distances: Sequence[Distance]
    ) -> tuple[Float[Tensor, "distance pair"], Shares]:
        """Distances of the two responses of every pair, and the shares in them."""
        device, wide = states.device, states.dtype if states.dtype == torch.float64 else torch.float32
        masks, own, found = self.layout.tokens.on(device), self.layout.own.on(device), self.sinks.to(device)
        if self.left_out is not None:
            left_out = self.left_out.on(device)
            masks, found = masks & ~left_out, found & ~left_out
            own = own & ~(left_out[: len(own)] | left_out[len(own) :])
        safe, unsafe = states.to(wide).chunk(2)
        safe_mask, unsafe_mask = masks.chunk(2)
        safe_sinks, unsafe_sinks = found.chunk(2)
        shares = []
        for distance in distances:
            if distance in ("released", "residual"):
                positions = own if distance == "released" else safe_mask & unsafe_mask
                shares.append(Shares.over_positions(safe, unsafe, positions, safe_sinks | unsafe_sinks))
            elif distance == "pooled":
                shares.append(Shares.of_means(safe, unsafe, (safe_mask, unsafe_mask), (safe_sinks, unsafe_sinks)))
            else:  # the pooled one, over what is no vector
                shares.append(shares[-1])
        values = pair_distances(safe, unsafe, safe_mask, unsafe_mask, distances, own=own)
        return values, Shares.joined(shares, torch.cat)


def distances_by_block(
    checkpoint: Checkpoint, sites: Sequence[HookSite], layout: PairLayout, *, without_sinks: bool = False
) -> tuple[Float[Tensor, "distance block pair"], Shares]:
    """Every distance of every pair after every block, and what one entry and all sinks make of it.

    `released` wants the pass that the released code makes, without position ids, so that padding on the left shifts
    the positions of a response; the distances over tokens want positions that ignore padding. That takes a second pass
    where the shift is more than rounding.

    Args:
        checkpoint, sites, layout: the model, the stream after its blocks, and what is read.
        without_sinks: leave sinks out: at every block the positions at which a massive activation stands after any.
            They are found by passes of their own.

    Returns:
        The distances; and the shares in their squares, by distance, block and pair as well.
    """
    twice = layout.shifted and not positions_are_relative(checkpoint)
    mask = {"attention_mask": layout.tokens.on(checkpoint.device).long()} if layout.padded else {}

    def read(see: Callable[[Tensor], None]) -> Tensor:
        return _read(checkpoint, sites, layout.ids, see, mask)

    def read_at_left(see: Callable[[Tensor], None]) -> Tensor:  # padding on the right shifts nothing, needs no mask
        return _read(checkpoint, sites, layout.at_left, lambda states: see(layout.moved(states)), {})

    def start(reader: Callable[[Callable[[Tensor], None]], Tensor], looked: OnDevices) -> _Pass:
        if not without_sinks:
            return _Pass(layout, looked)
        found = _Pass(layout, looked)
        reader(found.look)
        return _Pass(layout, looked, found.all_sinks())

    first = start(read, OnDevices(layout.own.host.repeat(2, 1)))
    released, masked = list[tuple[Tensor, Shares]](), list[tuple[Tensor, Shares]]()

    def see(states: Tensor) -> None:
        first.look(states)
        if len(released) < len(sites) - 1:  # the last entry of `hidden_states` has the final norm
            released.append(first.distances(states, DISTANCES[:1]))
        if not twice:
            masked.append(first.distances(states, DISTANCES[1:]))

    released.append(first.distances(read(see), DISTANCES[:1]))
    if twice:
        second = start(read_at_left, layout.tokens)

        def see_at_left(states: Tensor) -> None:
            second.look(states)
            masked.append(second.distances(states, DISTANCES[1:]))

        read_at_left(see_at_left)
    values = [torch.cat([one.cpu(), three.cpu()]) for (one, _), (three, _) in zip(released, masked, strict=True)]
    shares = [Shares.joined([one, three], torch.cat) for (_, one), (_, three) in zip(released, masked, strict=True)]
    return torch.stack(values, dim=1), Shares.joined(shares, partial(torch.stack, dim=1))


def _read(
    checkpoint: Checkpoint,
    sites: Sequence[HookSite],
    ids: Int[Tensor, "row pos"],
    see: Callable[[Tensor], None],
    mask: dict[str, Tensor],
) -> Float[Tensor, "row pos d_model"]:
    """Show the residual stream after every block, and return it after the final norm; there are no logits."""
    with watching(checkpoint.model, sites, lambda _, states: see(states), stop=False):
        output = checkpoint.model.base_model(input_ids=ids.to(checkpoint.device), use_cache=False, **mask)
    last: Tensor = output.last_hidden_state
    return last
