"""The losses of instances that pass the model in parts, one part after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from mechinterp.data.pairs import AnyPair
from mechinterp.methods.editing.objective import Losses
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.upper_blocks import Component


class Parts:
    """The losses of some groups of instances, part by part, at every iteration.

    Args:
        checkpoint, blocks, component, settings: as in `Losses.of`.
        groups: the instances of each part.
        keep: run the lower blocks once and keep what leaves them. Otherwise they are run again whenever a part's turn
            comes: slower, in memory that does not grow with the number of parts; the losses are the same.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        groups: Sequence[Sequence[AnyPair]],
        blocks: Sequence[int],
        component: Component,
        settings: DinmSettings,
        *,
        keep: bool = True,
    ) -> None:
        self.instances = sum(len(group) for group in groups)
        self.late = settings.released and settings.use_constraint
        self._groups, self._given = groups, (blocks, component, settings)
        self._checkpoint = checkpoint
        self._kept = [self._make(group) for group in groups] if keep else None
        # of all steps, and small: what a late L_c is computed from
        self._waiting: list[list[Tensor]] = [[] for _ in groups]

    def __iter__(self) -> Iterator[Losses]:
        if self._kept is not None:
            yield from self._kept
            return
        for group, waiting in zip(self._groups, self._waiting, strict=True):
            part = self._make(group)
            part.waiting = waiting
            yield part

    def _make(self, group: Sequence[AnyPair]) -> Losses:
        blocks, component, settings = self._given
        return Losses.of(self._checkpoint, group, blocks, component, settings)
