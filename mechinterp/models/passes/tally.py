"""Sums of what a recording measures, kept on the devices where the values arise."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.sequences import OnDevices
from mechinterp.models.text.tokens import Position


class Tally:
    """What a recording of one position is made of, summed up on the devices where the values arise."""

    def __init__(
        self,
        n_inputs: int,
        groups: int,
        keep: Sequence[str],
        project: dict[str, Tensor],
        together: Collection[str],
        lengths: Collection[str],
    ) -> None:
        self.n_inputs, self.n_groups = n_inputs, min(n_inputs, groups)
        self.keep, self.project, self.together = frozenset(keep), project, frozenset(together)
        self.sums: dict[str, Tensor] = {}
        self.non_finite: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.projected: dict[str, Tensor] = {}
        self.measured, self.lengths = frozenset(lengths), dict[str, Tensor]()
        self.entry_shares: dict[str, Tensor] = {}

    def expect(self, inputs: Int[Tensor, " row"]) -> None:
        """Say which inputs the values to come are of."""
        self.inputs = OnDevices(inputs)
        self.turns = [
            (OnDevices(inputs[turn] % self.n_groups), OnDevices(turn)) for turn in _turns(inputs % self.n_groups)
        ]

    def add(self, hook: str, values: Float[Tensor, "row d"]) -> None:
        """Add the values of the expected inputs at a hook point, without waiting for the device."""
        if hook not in self.sums:
            self._make_room(hook, values.shape[1], values.dtype, values.device)
        total = self.sums[hook]
        self.non_finite[hook] += (~torch.isfinite(values)).sum()
        wide = values.to(total.dtype)
        if hook in self.together:
            total += wide.sum(0)
        else:
            for groups, turn in self.turns:
                total.index_add_(0, groups.on(total.device), wide[turn.on(total.device)])
        if hook in self.project:
            self.projected[hook][self.inputs.on(total.device)] = wide @ self.project[hook]
        if hook in self.keep:  # these may be many: they leave the device
            self.kept[hook][self.inputs.host] = values.cpu()

    def measure(self, hook: str, lengths: Float[Tensor, " row"], shares: Float[Tensor, " row"]) -> None:
        """Keep the lengths of the expected inputs, and the entries' shares, at a hook point whose values were added."""
        for kept, found in ((self.lengths[hook], lengths), (self.entry_shares[hook], shares)):
            kept[self.inputs.on(kept.device)] = found.to(kept)

    def _make_room(self, hook: str, d: int, dtype: torch.dtype, device: torch.device) -> None:
        # float64 sums where the device has it: thousands of inputs, and differences of means are taken later
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.sums[hook] = torch.zeros(1 if hook in self.together else self.n_groups, d, dtype=wide, device=device)
        self.non_finite[hook] = torch.zeros((), dtype=torch.long, device=device)
        if hook in self.project:
            self.project[hook] = self.project[hook].to(self.sums[hook])
            self.projected[hook] = torch.zeros(self.n_inputs, self.project[hook].shape[1], dtype=wide, device=device)
        if hook in self.measured:
            self.lengths[hook] = torch.zeros(self.n_inputs, dtype=wide, device=device)
            self.entry_shares[hook] = torch.zeros_like(self.lengths[hook])
        if hook in self.keep:
            self.kept[hook] = torch.zeros(self.n_inputs, d, dtype=dtype)

    def recording(self, hooks: Sequence[str], position: Position, checkpoint: Checkpoint) -> Recording:
        """Join the processes' sums, once, and make the recording of them."""
        kept = torch.promote_types(checkpoint.model.dtype, torch.float32)
        for share in processes.gather([{hook: total.shape[1] for hook, total in self.sums.items()}]):
            for hook, d in share.items():
                if hook not in self.sums:  # a process without a single batch has seen nothing
                    self._make_room(hook, d, kept, checkpoint.device)
        measured = (self.lengths, self.entry_shares)
        for parts in (self.sums, self.non_finite, self.kept, self.projected, *measured):
            processes.add_up(parts[hook] for hook in hooks if hook in parts)
        sizes = torch.bincount(torch.arange(self.n_inputs) % self.n_groups).to(torch.float64)
        return Recording(
            groups={
                hook: self.sums[hook].cpu().double() / (self.n_inputs if hook in self.together else sizes[:, None])
                for hook in hooks
            },
            group_sizes=sizes,
            inputs=self.kept,
            projections={hook: rows.cpu() for hook, rows in self.projected.items()},
            lengths={hook: found.cpu() for hook, found in self.lengths.items()},
            entry_shares={hook: found.cpu() for hook, found in self.entry_shares.items()},
            non_finite={hook: int(self.non_finite[hook]) for hook in hooks},
            position=position,
            checkpoint=checkpoint.name,
            fingerprint=checkpoint.fingerprint,
            tokenizer=checkpoint.tokenizer_fingerprint,
        )


def _turns(groups: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
    """The rows in turns with no group twice in one: on every device the sums then add up in one order."""
    turns: list[list[int]] = []
    seen: dict[int, int] = {}
    for row, group in enumerate(groups.tolist()):
        turn = seen[group] = seen.get(group, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(row)
    return [torch.tensor(turn) for turn in turns]
