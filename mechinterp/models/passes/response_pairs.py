"""Pairs of responses through a model in batches: how far apart the two are after every block.

Each pair is padded to its own longer response, as if it were alone; what the batch adds beyond that stands on the
right, where causal attention never looks, so that neighbours change a pair's numbers by rounding only. The distances of
a block are taken as the pass leaves it, and of its states nothing is kept: memory does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.measures.distances import DISTANCES, pair_distances
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
        shifted: whether padding on the left moves any response.
    """

    ids: Int[Tensor, "row pos"]
    at_left: Int[Tensor, "row pos"]
    tokens: OnDevices
    own: OnDevices
    columns: OnDevices
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
            shifted=bool(starts.any()),
        )

    @property
    def padded(self) -> bool:
        """Whether any pair has padding of its own."""
        tokens, own = self.tokens.host, self.own.host
        return bool((own & ~(tokens[: len(own)] & tokens[len(own) :])).any())

    def masked(self, states: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "distance pair"]:
        """The distances over tokens."""
        (safe, unsafe), masks = states.chunk(2), self.tokens.on(states.device).chunk(2)
        return pair_distances(safe, unsafe, masks[0], masks[1], DISTANCES[1:])

    def released(self, states: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "distance pair"]:
        """The distance over all positions of a pair."""
        (safe, unsafe), masks = states.chunk(2), self.tokens.on(states.device).chunk(2)
        return pair_distances(safe, unsafe, masks[0], masks[1], DISTANCES[:1], own=self.own.on(states.device))

    def moved(self, states: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """States of `at_left` in the columns of `ids`; those under padding are any."""
        columns = self.columns.on(states.device)
        return states[torch.arange(len(states), device=states.device)[:, None], columns]


def distances_by_block(
    checkpoint: Checkpoint, sites: Sequence[HookSite], layout: PairLayout
) -> Float[Tensor, "distance block pair"]:
    """Every distance of every pair after every block.

    `released` wants the pass that the released code makes, without position ids, so that padding on the left shifts
    the positions of a response; the distances over tokens want positions that ignore padding. That takes a second pass
    where the shift is more than rounding.
    """
    twice = layout.shifted and not positions_are_relative(checkpoint)
    released: list[Tensor] = []
    masked: list[Tensor] = []

    def see(states: Tensor) -> None:
        if len(released) < len(sites) - 1:  # the last entry of `hidden_states` has the final norm
            released.append(layout.released(states))
        if not twice:
            masked.append(layout.masked(states))

    mask = {"attention_mask": layout.tokens.on(checkpoint.device).long()} if layout.padded else {}
    last = _read(checkpoint, sites, layout.ids, see, mask)
    released.append(layout.released(last))
    if twice:  # from column 0 on: padding on the right shifts nothing and needs no mask
        _read(checkpoint, sites, layout.at_left, lambda states: masked.append(layout.masked(layout.moved(states))), {})
    parts = [torch.cat([one.cpu(), three.cpu()]) for one, three in zip(released, masked, strict=True)]
    return torch.stack(parts, dim=1)


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
