"""DINM: detoxifying with intraoperative neural monitoring (Wang et al. 2024, Eq. 8-11).

Only W_V of one block is trained, on one instance, T steps of Adam, on

    L = c_edit L_e + L_c
    L_e = mean over tokens of Y_safe of -log P(token | [X; S], earlier tokens)
    L_c = mean over the answer tokens of a general-knowledge pair of KL between the next-token distributions of the
          edited and the unedited model, the pair's prompt with S appended

with X the adversarial prompt, S a suffix prompt, [X; S] = X + " " + S.

The released code is not the published method, so both exist (`DinmSettings.constraint`); each deviation is a switch of
`DinmSettings`, turned on together by `constraint="released"`.

Everything upstream of W_V is constant while it is trained, so the texts pass the lower blocks once and each step runs
only what is above (`models.passes.upper_blocks`). Edits of many instances are computed side by side, each on its own
copy of W_V.

A low loss on one instance does not show that anything was erased: see `measures.decomposition`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.methods.editing.descent import Run, Trained, descend, ready
from mechinterp.methods.editing.keys import edit_key, joint_key
from mechinterp.methods.editing.losses_in_turn import Parts
from mechinterp.methods.editing.memory import allowed, bytes_kept
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.editing.texts import edit_text, say_of_texts
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta
from mechinterp.models.passes.upper_blocks import Component
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.batches import length_batches

__all__ = ["DinmSettings", "FailedEdit", "checked", "edit", "edit_batch", "edit_together"]


@dataclass(frozen=True)
class FailedEdit:
    """An edit that came to nothing: a loss, or the change itself, was not finite."""

    instance: int
    step: int
    loss: float

    @classmethod
    def of(cls, instance: int, log: Sequence[EditStep]) -> FailedEdit:
        """From what was seen until then; without a step it is not the loss."""
        return cls(instance, max(0, len(log) - 1), log[-1].loss if log else 0.0)

    @property
    def reason(self) -> str:
        """What happened, and what to do."""
        what = "the change of the weights" if math.isfinite(self.loss) else f"the loss became {self.loss}"
        what += " is not finite after step" if math.isfinite(self.loss) else " at step"
        return f"{what} {self.step}; nothing was applied, lower the learning rate or use float32"

    def __str__(self) -> str:
        return f"instance {self.instance}: {self.reason}"


def edit(
    checkpoint: Checkpoint,
    instance: AnyPair,
    *,
    block: int | Sequence[int],
    settings: DinmSettings | None = None,
    component: Component = "mlp.out",
    progress: Progress | None = None,
) -> WeightDelta:
    """Compute the DINM edit of one instance; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        instance: gives X, Y_safe and the general-knowledge pair.
        block: the toxic layer, from 0; several are trained together.
        settings: see `DinmSettings`.
        component: what is trained there: W_V, or the whole MLP.
        progress: called with (steps done, steps in all).

    Returns:
        The change of the weights (and of their bias where `released` trains it), with what was seen at every step.

    Raises:
        InputError: for a block out of range, a text that does not fit, or a loss that is not finite (with its step).
    """
    settings = settings or DinmSettings()
    say_of_texts(checkpoint, [instance], settings)
    (found,) = edit_together(
        checkpoint, [instance], block=block, settings=settings, component=component, progress=progress
    )
    return checked(found)


def edit_together(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    block: int | Sequence[int],
    settings: DinmSettings | None = None,
    component: Component = "mlp.out",
    fingerprint: str | None = None,
    progress: Progress | None = None,
) -> list[WeightDelta | FailedEdit]:
    """The edits of several instances, each for itself, computed side by side.

    The texts share batches, each with its own copy of the weights: the results are those of one edit after the other
    but for rounding. Memory grows with the number of instances; `editing.edit_each` chooses it.

    Args:
        fingerprint: of the weights that the edits belong to; by default the checkpoint's.
        checkpoint, instances, block, settings, component, progress: as in `edit`.

    Returns:
        An edit per instance, in their order; in its place a `FailedEdit` where its loss was not finite.

    Raises:
        InputError: as `edit`, but for losses.
    """
    settings = settings or DinmSettings()
    blocks = _checked_blocks(checkpoint, block)
    with ready(checkpoint.model):
        losses = Parts(checkpoint, [instances], blocks, component, settings)
        trained = Trained(checkpoint, blocks, component, settings, copies=len(instances))
        runs = descend(trained, losses, settings, progress)
    found: list[WeightDelta | FailedEdit] = []
    for i, (instance, run) in enumerate(zip(instances, runs, strict=True)):
        changes = None if run.failed else trained.changes(i)
        if changes is None or not _finite(changes):
            found.append(FailedEdit.of(instance.id, run.log))
            continue
        delta = _delta(changes, blocks, [instance], settings, run)
        key = edit_key(checkpoint, instance, blocks, settings, component)
        weights, tokenizer = fingerprint or checkpoint.fingerprint, checkpoint.tokenizer_fingerprint
        found.append(replace(delta, mode="each", key=key, fingerprint=weights, tokenizer=tokenizer))
    return found


def edit_batch(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
    *,
    block: int | Sequence[int],
    settings: DinmSettings | None = None,
    component: Component = "mlp.out",
    max_tokens: int = 2048,
    progress: Progress | None = None,
) -> WeightDelta:
    """One edit for several instances: T steps on the mean of their losses (left by the paper to future work).

    Args:
        max_tokens: padded tokens that pass the model at once; gradients of the parts are added up. Where there are so
            many parts that what leaves the lower blocks does not fit into memory, these are run at every step.
        checkpoint, instances, block, settings, component, progress: as in `edit`.

    Raises:
        InputError: as `edit`.
    """
    if not instances:
        raise InputError("there are no instances to edit")
    settings = settings or DinmSettings()
    blocks = _checked_blocks(checkpoint, block)
    say_of_texts(checkpoint, instances, settings)
    lengths = [len(edit_text(checkpoint, instance, settings).ids) for instance in instances]
    parts = [
        [instances[i] for i in order]
        for order in length_batches(lengths, max_tokens, apart=checkpoint.names.short_context)
    ]
    keep = len(parts) == 1 or bytes_kept(checkpoint, instances, blocks, settings) <= allowed(checkpoint)
    with ready(checkpoint.model):
        losses = Parts(checkpoint, parts, blocks, component, settings, keep=keep)
        trained = Trained(checkpoint, blocks, component, settings, copies=None)
        (run,) = descend(trained, losses, settings, progress)
    changes = trained.changes(0)
    if run.failed or not _finite(changes):
        failed = FailedEdit.of(instances[0].id, run.log)
        raise InputError(
            f"the batch of {many(len(instances), 'instance')}: {failed.reason}" if len(instances) > 1 else str(failed)
        )
    key = joint_key("batch", [edit_key(checkpoint, i, blocks, settings, component) for i in instances])
    delta = _delta(changes, blocks, instances, settings, run)
    weights, tokenizer = checkpoint.fingerprint, checkpoint.tokenizer_fingerprint
    return replace(delta, mode="batch", key=key, fingerprint=weights, tokenizer=tokenizer)


def checked(found: WeightDelta | FailedEdit) -> WeightDelta:
    """The edit; raises `InputError` if it came to nothing."""
    if isinstance(found, FailedEdit):
        raise InputError(str(found))
    return found


def _checked_blocks(checkpoint: Checkpoint, block: int | Sequence[int]) -> list[int]:
    blocks = sorted({block} if isinstance(block, int) else set(block))
    if not blocks:
        raise InputError("there is no block to edit")
    return [checkpoint.names.check_block(b) for b in blocks]


def _finite(changes: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(change).all()) for change in changes.values())


def _delta(
    changes: Mapping[str, Tensor],
    blocks: Sequence[int],
    instances: Sequence[AnyPair],
    settings: DinmSettings,
    run: Run,
) -> WeightDelta:
    return WeightDelta(
        tensors=changes,
        block=blocks[0],
        also=tuple(blocks[1:]),
        instance=instances[0].id,
        instances=tuple(instance.id for instance in instances) if len(instances) > 1 else (),
        settings=settings.model_dump(),
        log=tuple(run.log),
    )
