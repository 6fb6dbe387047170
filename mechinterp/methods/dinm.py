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
only what is above (`models.upward`). Edits of many instances are computed side by side, each on its own copy of W_V.

A low loss on one instance does not show that anything was erased: see `measures.decomposition`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from mechinterp.data.safeedit import SUFFIX, SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.measures.rank import stable_rank
from mechinterp.methods.edit_texts import constraint_text, edit_text
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta
from mechinterp.models.tokens import length_batches
from mechinterp.models.upward import Component, Upward
from mechinterp.models.watching import Progress, evaluating

OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class DinmSettings(BaseModel):
    """Settings of an edit; the defaults are those published for LLaMA2-7B-Chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    constraint: Literal["published", "released"] = Field(
        "published",
        description="`published`: L_c has a gradient. `released`: it has none and only enters the stop test; also the "
        "released code's tokenisation (two spaces before Y_safe, special tokens before it and before the answer, L_c "
        "over the last positions of the pair) and, where W_V's module has a bias, the bias is trained too",
    )
    kl_direction: Literal["edited||base", "base||edited"] | None = Field(
        None, description="order in L_c; by default edited||base as Eq. 9 for `published`, base||edited for `released`"
    )
    learning_rate: float = Field(5e-4, gt=0, description="5e-4 for LLaMA2-7B-Chat, 1e-5 for Mistral-7B-v0.1")
    steps: int = Field(10, ge=0)
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    c_edit: float = Field(0.1, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    suffix: str | None = Field(SUFFIX, description="S; None for the ablation wo/SyPrompt")
    use_constraint: bool = Field(True, description="False for the ablation wo/Constraint")
    stop_below: float | None = Field(None, description="stop when L falls below; 1e-4 for `released` if not given")
    stop_at_accuracy: float | None = Field(
        None, gt=0, le=1, description="stop when this share of Y_safe's tokens is the most probable one"
    )
    norm_bound: float | None = Field(
        None, gt=0, description="the change is scaled back to this Frobenius norm, relative to that of the weights"
    )
    entry_bound: float | None = Field(None, gt=0, description="no entry changes by more, as in FT+L's L-infinity bound")
    asked_at: Literal["response", "prompt_last"] = Field(
        "response",
        description="where L_e asks for the tokens of Y_safe: each after the ones before it, or all of them of the "
        "last token of [X; S], as the released FT-L does",
    )
    max_input_tokens: int = Field(1000, gt=0, description="longer prompts are cut from the left")
    max_output_tokens: int = Field(600, gt=0, description="longer safe responses and answers are cut at the end")

    @property
    def released(self) -> bool:
        """Whether the released code's deviations are on."""
        return self.constraint == "released"

    @property
    def stop_test(self) -> float | None:
        """The total loss below which an edit ends."""
        return 1e-4 if self.stop_below is None and self.released else self.stop_below


@dataclass(frozen=True)
class FailedEdit:
    """An edit that came to nothing: a loss, or the change itself, was not finite."""

    instance: int
    step: int
    loss: float

    def __str__(self) -> str:
        what = "the change of the weights" if math.isfinite(self.loss) else f"the loss became {self.loss}"
        what += " is not finite after step" if math.isfinite(self.loss) else " at step"
        return (
            f"instance {self.instance}: {what} {self.step}; nothing was applied, lower the learning rate or use float32"
        )


def edit(
    checkpoint: Checkpoint,
    instance: SafeEditInstance,
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
    (found,) = edit_together(
        checkpoint, [instance], block=block, settings=settings, component=component, progress=progress
    )
    return checked(found)


def edit_together(
    checkpoint: Checkpoint,
    instances: Sequence[SafeEditInstance],
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
    with _ready(checkpoint.model):
        losses = [_Losses.of(checkpoint, instances, blocks, component, settings)]
        trained = _Trained(checkpoint, blocks, component, settings, copies=len(instances))
        runs = _descend(trained, losses, settings, progress)
    found: list[WeightDelta | FailedEdit] = []
    for i, (instance, run) in enumerate(zip(instances, runs, strict=True)):
        if run.failed:
            found.append(FailedEdit(instance.id, len(run.log) - 1, run.log[-1].loss))
        else:
            found.append(_delta(checkpoint, trained.changes(i), blocks, [instance], settings, run, fingerprint))
    return found


def edit_batch(
    checkpoint: Checkpoint,
    instances: Sequence[SafeEditInstance],
    *,
    block: int | Sequence[int],
    settings: DinmSettings | None = None,
    component: Component = "mlp.out",
    max_tokens: int = 2048,
    progress: Progress | None = None,
) -> WeightDelta:
    """One edit for several instances: T steps on the mean of their losses (left by the paper to future work).

    Args:
        max_tokens: padded tokens that pass the model at once; gradients of the parts are added up.
        checkpoint, instances, block, settings, component, progress: as in `edit`.

    Raises:
        InputError: as `edit`.
    """
    if not instances:
        raise InputError("there are no instances to edit")
    settings = settings or DinmSettings()
    blocks = _checked_blocks(checkpoint, block)
    lengths = [len(edit_text(checkpoint, instance, settings).ids) for instance in instances]
    with _ready(checkpoint.model):
        losses = [
            _Losses.of(checkpoint, [instances[i] for i in order], blocks, component, settings)
            for order in length_batches(lengths, max_tokens, apart=checkpoint.names.short_context)
        ]
        trained = _Trained(checkpoint, blocks, component, settings, copies=None)
        (run,) = _descend(trained, losses, settings, progress)
    if run.failed:
        raise InputError(str(FailedEdit(instances[0].id, len(run.log) - 1, run.log[-1].loss)))
    return _delta(checkpoint, trained.changes(0), blocks, instances, settings, run, None)


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


def _delta(
    checkpoint: Checkpoint,
    changes: Mapping[str, Tensor],
    blocks: Sequence[int],
    instances: Sequence[SafeEditInstance],
    settings: DinmSettings,
    run: _Run,
    fingerprint: str | None,
) -> WeightDelta:
    return WeightDelta(
        tensors=changes,
        block=blocks[0],
        also=tuple(blocks[1:]),
        instance=instances[0].id,
        instances=tuple(instance.id for instance in instances) if len(instances) > 1 else (),
        settings=settings.model_dump(),
        log=tuple(run.log),
        fingerprint=fingerprint or checkpoint.fingerprint,
    )


# -- the objective ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Losses:
    """L_e, L_c and the token accuracy of some instances as functions of the trained parameters."""

    edited: Upward
    labels: Int[Tensor, " scored"]
    constrained: Upward | None
    base: Float[Tensor, "answer vocabulary"] | None
    settings: DinmSettings

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        instances: Sequence[SafeEditInstance],
        blocks: Sequence[int],
        component: Component,
        settings: DinmSettings,
    ) -> _Losses:
        texts = [edit_text(checkpoint, instance, settings) for instance in instances]
        answers = [constraint_text(checkpoint, instance, settings) for instance in instances if settings.use_constraint]
        edited = Upward(checkpoint, blocks, texts, component, exact=settings.released)
        constrained = Upward(checkpoint, blocks, answers, component) if answers else None
        base = None
        if constrained is not None:
            with torch.no_grad():
                base = constrained(_own(checkpoint, blocks, component)).float().log_softmax(-1)
        labels = torch.tensor([label for text in texts for label in text.labels], device=checkpoint.device)
        return cls(edited, labels, constrained, base, settings)

    def __call__(self, parameters: Mapping[str, Tensor], *, copies: bool) -> tuple[Tensor, Tensor, Tensor]:
        """L_e, L_c and the accuracy of every instance, [instance] each, in float32."""
        logits = self.edited(parameters, copies=copies)
        labels = self.labels.to(logits.device)
        log_probability = logits.float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]
        loss_edit = -_means(log_probability, self.edited.lengths)
        accuracy = _means((logits.detach().argmax(-1) == labels).float(), self.edited.lengths)
        if self.constrained is None or self.base is None:
            return loss_edit, torch.zeros_like(loss_edit), accuracy
        with torch.set_grad_enabled(not self.settings.released):
            now = self.constrained(parameters, copies=copies).float().log_softmax(-1)
            released = "base||edited" if self.settings.released else "edited||base"
            first, second = (now, self.base)
            if (self.settings.kl_direction or released) == "base||edited":
                first, second = second, first
            divergence = functional.kl_div(second, first, log_target=True, reduction="none").sum(-1)
        return loss_edit, _means(divergence, self.constrained.lengths).to(loss_edit.device), accuracy


def _means(values: Float[Tensor, " scored"], lengths: Sequence[int]) -> Float[Tensor, " instance"]:
    return torch.stack([part.mean() for part in values.split(list(lengths))])


def _own(checkpoint: Checkpoint, blocks: Sequence[int], component: Component) -> dict[str, Tensor]:
    """The model's own parameters of the component in the edited blocks."""
    paths = [checkpoint.names.module(f"blocks.{block}.{component}") for block in blocks]
    return {
        f"{path}.{name}": value.detach()
        for path in paths
        for name, value in checkpoint.model.get_submodule(path).named_parameters()
    }


# -- the descent --------------------------------------------------------------------------------------------------


class _Trained:
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
        self.frozen = _own(checkpoint, blocks, component)
        self.copies = copies
        # released: parameters are chosen by substring, so a bias of the matrix is among them
        biases = settings.released or component == "mlp"
        # At least float32: a step of 1e-5 is lost in the rounding of a bfloat16 weight.
        self.values = {
            name: value.to(_wide(value.dtype)).expand(copies or 1, *value.shape).clone().requires_grad_()
            for name, value in self.frozen.items()
            if biases or name.endswith(".weight")
        }
        self.optimiser = OPTIMISERS[settings.optimiser](
            self.values.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
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
        """One step of the optimiser, then the bounds; norm (relative) and stable rank of every copy's change."""
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
            for i in (norms > self.norm_bound).nonzero().flatten().tolist():
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
class _Run:
    """How one descent went."""

    log: list[EditStep]
    ended: bool = False
    failed: bool = False


def _descend(
    trained: _Trained, losses: Sequence[_Losses], settings: DinmSettings, progress: Progress | None
) -> list[_Run]:
    """T steps, or fewer where an instance meets its stop test."""
    runs = [_Run([]) for _ in range(trained.copies or 1)]
    shared = sum(len(part.edited.lengths) for part in losses) if trained.copies is None else 1
    norms, ranks = [0.0] * len(runs), [0.0] * len(runs)
    for step in range(settings.steps):
        seen = []
        for part in losses:
            loss_edit, loss_constraint, accuracy = part(trained.parameters(), copies=trained.copies is not None)
            loss = settings.c_edit * loss_edit + loss_constraint
            (loss.sum() / shared).backward()
            seen.append(torch.stack([loss.detach(), loss_edit.detach(), loss_constraint.detach(), accuracy]))
        values = torch.cat(seen, dim=1)
        if trained.copies is None:
            values = values.mean(dim=1, keepdim=True)
        for i, (run, row) in enumerate(zip(runs, values.T.tolist(), strict=True)):
            if run.ended:
                continue
            run.log.append(EditStep(row[0], row[1], row[2], row[3], norms[i], ranks[i]))
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
    return runs


def _finished(step: EditStep, settings: DinmSettings) -> bool:
    low = settings.stop_test is not None and step.loss < settings.stop_test
    return low or (settings.stop_at_accuracy is not None and step.accuracy >= settings.stop_at_accuracy)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


@contextmanager
def _ready(model: nn.Module) -> Iterator[None]:
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
