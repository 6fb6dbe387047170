"""The descent of an edit: copies of the trained parameters, the optimiser's steps, bounds, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mechinterp.measures.low_rank import stable_rank
from mechinterp.methods.editing.losses_in_turn import Parts
from mechinterp.methods.editing.objective import own_parameters
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep
from mechinterp.models.passes.upper_blocks import Component
from mechinterp.models.passes.watching import Progress, evaluating

OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class Trained:
    """Copies of the trained parameters: one per instance side by side, or (copies=None) one that all share."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        blocks: Sequence[int],
        component: Component,
        settings: DinmSettings,
        *,
        copies: int | None,
    ) -> None:
        self.frozen = own_parameters(checkpoint, blocks, component)
        self.copies = copies
        biases = settings.with_biases or component == "mlp"
        # At least float32: a step of 1e-5 is lost in the rounding of a bfloat16 weight.
        self.values = {
            name: value.to(_wide(value.dtype)).expand(copies or 1, *value.shape).clone().requires_grad_()
            for name, value in self.frozen.items()
            if biases or name.endswith(".weight")
        }
        # The fused kernel needs no copies of the weights for arithmetic; the last bits of its steps are others.
        self.optimiser = OPTIMISERS[settings.optimiser](
            self.values.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=not settings.released,
        )
        self.norm_bound, self.entry_bound = settings.norm_bound, settings.entry_bound
        self._size = math.hypot(*(float(self.frozen[name].float().norm()) for name in self.values))
        self._vectors: dict[str, Tensor] = {}
        self._kept: dict[int, dict[str, Tensor]] = {}

    def parameters(self) -> dict[str, Tensor]:
        """What the model computes with: in its own type, [copy, ...] or, shared, as stored."""
        found = {}
        for name, own in self.frozen.items():
            value = self.values.get(name)
            if value is None:
                found[name] = own if self.copies is None else own.expand(self.copies, *own.shape)
            else:
                found[name] = (value.squeeze(0) if self.copies is None else value).to(own.dtype)
        return found

    @torch.no_grad()
    def step(self) -> tuple[list[float], list[float]]:
        """One step of the optimiser, then the bounds; norm (relative) and stable rank of every copy's change.

        A norm that is not finite is told as it is: no bound makes an edit of it.
        """
        self.optimiser.step()
        self.optimiser.zero_grad()
        squares = torch.zeros(self.copies or 1, dtype=torch.float64)
        ranks = torch.zeros(self.copies or 1)
        for name, value in self.values.items():
            own = self.frozen[name].to(value.dtype)
            if self.entry_bound is not None:
                value.copy_(torch.clamp(value, own - self.entry_bound, own + self.entry_bound))
            change = value - own
            squares += change.flatten(1).norm(dim=1).double().cpu().square()
            if own.dim() == 2:
                found, self._vectors[name] = stable_rank(change, self._vectors.get(name))
                ranks = torch.maximum(ranks, found.cpu())
        norms = squares.sqrt() / self._size
        if self.norm_bound is not None:
            for i in ((norms > self.norm_bound) & norms.isfinite()).nonzero().flatten().tolist():
                for name, value in self.values.items():
                    own = self.frozen[name].to(value.dtype)
                    value[i].copy_(own + (value[i] - own) * (self.norm_bound / norms[i].item()))
                norms[i] = self.norm_bound
        return norms.tolist(), ranks.tolist()

    def keep(self, i: int) -> None:
        """Remember a copy as it is now: what the optimiser still does to it does not count."""
        self._kept[i] = {name: value.detach()[i].clone() for name, value in self.values.items()}

    def changes(self, i: int) -> dict[str, Tensor]:
        """The change of one copy, on the CPU, in float32 or wider."""
        kept = self._kept.get(i) or {name: value.detach()[i] for name, value in self.values.items()}
        return {name: (value - self.frozen[name]).cpu() for name, value in kept.items()}


@dataclass
class Run:
    """How one descent went."""

    log: list[EditStep]
    ended: bool = False
    failed: bool = False


def descend(trained: Trained, losses: Parts, settings: DinmSettings, progress: Progress | None) -> list[Run]:
    """T steps, or fewer where an instance meets its stop test.

    Args:
        trained: one copy per instance, or one that all share.
        losses: of all instances, in parts.

    Returns:
        A run per copy.
    """
    copies = trained.copies is not None
    runs = [Run([]) for _ in range(trained.copies or 1)]
    shared = 1 if copies else losses.instances
    late = losses.late
    norms, ranks = [0.0] * len(runs), [0.0] * len(runs)
    for step in range(settings.steps):
        seen = []
        for part in losses:
            # one after the other, so that the logits of one are gone before those of the other come
            loss_edit, accuracy = part.of_edit(trained.parameters(), copies=copies)
            (settings.c_edit * loss_edit.sum() / shared).backward()
            loss_constraint = part.of_constraint(trained.parameters(), copies=copies)
            if loss_constraint is not None:
                (loss_constraint.sum() / shared).backward()
            seen.append(_values(settings, loss_edit.detach(), loss_constraint, accuracy))
            del loss_edit, loss_constraint
        for i, (run, row) in enumerate(zip(runs, _joined(seen, copies).T.tolist(), strict=True)):
            if not run.ended:
                run.log.append(EditStep(row[0], row[1], row[2], row[3], norms[i], ranks[i]))
        if late and any(_may_stop(run.log[-1], settings) for run in runs if not run.ended):
            _settle(runs, losses, settings, copies)
        for i, run in enumerate(runs):
            if not run.ended:
                run.failed = not math.isfinite(run.log[-1].loss)
                run.ended = run.failed or _finished(run.log[-1], settings)
                if run.ended and not run.failed:
                    trained.keep(i)
        if all(run.ended for run in runs):
            break
        norms, ranks = trained.step()
        for run, norm, rank in zip(runs, norms, ranks, strict=True):
            if not run.ended:
                run.log[-1] = replace(run.log[-1], change_norm=norm, stable_rank=rank)
                run.failed = run.ended = not math.isfinite(norm)
        if progress is not None:
            progress(step + 1, settings.steps)
    if late and settings.steps:
        _settle(runs, losses, settings, copies)
    return runs


def _values(settings: DinmSettings, loss_edit: Tensor, loss_constraint: Tensor | None, accuracy: Tensor) -> Tensor:
    """L, L_e, L_c and the accuracy of every instance, [value, instance]; without L_c where that is still to come."""
    if loss_constraint is None:
        loss_constraint = torch.zeros_like(loss_edit)
    loss_constraint = loss_constraint.detach().to(loss_edit.device)
    return torch.stack([settings.c_edit * loss_edit + loss_constraint, loss_edit, loss_constraint, accuracy])


def _joined(parts: Sequence[Tensor], copies: bool) -> Tensor:
    """Values of all instances, [value, instance]; where they share their parameters, the means over them."""
    values = torch.cat(list(parts), dim=1)
    return values if copies else values.mean(dim=1, keepdim=True)


def _settle(runs: Sequence[Run], losses: Parts, settings: DinmSettings, copies: bool) -> None:
    """Put L_c, which was left for later, into the logs; a run in which it was not finite has failed there."""
    values = _joined([part.settle() for part in losses], copies)
    for i, run in enumerate(runs):
        for step, (seen, loss_constraint) in enumerate(zip(run.log, values[:, i].tolist(), strict=False)):
            loss = settings.c_edit * seen.loss_edit + loss_constraint
            run.log[step] = replace(seen, loss=loss, loss_constraint=loss_constraint)
            if not math.isfinite(loss):
                run.failed = run.ended = True
                del run.log[step + 1 :]
                break


def _may_stop(step: EditStep, settings: DinmSettings) -> bool:
    """Whether the loss may be below the stop test: L_c is not negative."""
    return settings.stop_test is not None and settings.c_edit * step.loss_edit < settings.stop_test


def _finished(step: EditStep, settings: DinmSettings) -> bool:
    low = settings.stop_test is not None and step.loss < settings.stop_test
    return low or (settings.stop_at_accuracy is not None and step.accuracy >= settings.stop_at_accuracy)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


@contextmanager
def ready(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, gradients for none of the model's own parameters; then everything as it was.

    Grad mode is set here, whatever the caller's: an edit inside torch.no_grad() is still an edit.
    """
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
