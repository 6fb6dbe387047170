"""Where forgetting and keeping part: the gradients of both, tensor by tensor, block by block or neuron by neuron.

As MemFlex locates (KnowUnDo, arXiv 2407.01920): of several copies of each text, part of whose answers is replaced
(`corrupted`), the mean gradient of the mean loss over the answer; see `measures.gradient_region` for what is made of
it. The released script takes an adapter's factors; here also weights. A neuron is a row of W_V: a value vector.

A gradient says what a small step would move, not what the model knows there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.scopes import FORGET, RETAIN, Question, Scopes
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError, near
from mechinterp.measures.gradient_region import Agreement, Thresholds
from mechinterp.methods.training.trained_parameters import trained_parameters
from mechinterp.methods.unlearning.corrupted import Vocabulary, corrupted_copies
from mechinterp.methods.unlearning.losses import nll
from mechinterp.methods.unlearning.opened import PEFT, open_copy
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.unlearned import unended_texts_of
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.gradients import gradients_of
from mechinterp.models.passes.watching import Progress
from mechinterp.models.passes.whole_answers import ended
from mechinterp.models.text.batches import length_batches
from mechinterp.models.text.tokens import Encoded

if TYPE_CHECKING:
    import pandas as pd

Per = Literal["tensor", "block", "neuron"]
PER: tuple[Per, ...] = ("tensor", "block", "neuron")


@dataclass(frozen=True, eq=False)
class GradientRegion:
    """What was located, and all that it was located among.

    Attributes:
        table: a row for each tensor, block or neuron: `name`, `block`, `component`, `neuron`, `entries`, `cosine`,
            `magnitude` and `retain_magnitude` (mean absolute gradients), `located`.
        parameters: names of the tensors that are located; of neurons none, as no tensor is theirs alone.
        cosine, magnitude: the thresholds themselves; infinite for none.
    """

    table: pd.DataFrame
    parameters: tuple[str, ...]
    cosine: float
    magnitude: float

    def __repr__(self) -> str:
        return one_line(self, f"{int(self.table['located'].sum())} of {len(self.table)} located")

    @property
    def names(self) -> list[str]:
        """What is located, by name."""
        return [str(name) for name in self.table.loc[self.table["located"], "name"]]


def locate_by_gradient(
    checkpoint: Checkpoint,
    forget: Sequence[Question],
    retain: Sequence[Question],
    *,
    per: Per = "tensor",
    thresholds: Thresholds | None = None,
    corrupt: float = 0.5,
    copies: int = 3,
    settings: UnlearningSettings | None = None,
    parameters: Collection[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientRegion:
    """Locate what is to be forgotten by how the gradients of forgetting and keeping differ.

    Args:
        checkpoint: left as it was, its gradients and what wants them included.
        forget, retain: prompts with answers.
        per: what is located: a `tensor`, all of a `block`, or a `neuron` of an MLP's second matrix.
        thresholds: which are; by default those below the median cosine and above the median magnitude.
        corrupt: of so large a share of an answer's tokens as many are drawn anew; 0 for the texts as they are.
        copies: of each text.
        settings: how texts are fed (`separator`, `max_length`, `max_tokens`), and of what gradients are taken: the
            weights (`only`, `freeze`), or the factors of an `adapter`.
        parameters: names of the weights that alone are looked at, instead of those of `only` and `freeze`.
        seed: of the draws.
        progress: called with (texts done, texts in all).

    Returns:
        The region; of an adapter by the names that peft gives its tensors.

    Raises:
        InputError: for nothing to forget or to keep, the same for both, or thresholds that locate nothing.
    """
    if per not in PER:
        raise InputError(f"`per` must be one of {', '.join(PER)}, got {per!r}{near(per, PER)}")
    if not 0 <= corrupt <= 1 or copies < 1:
        raise InputError(f"`corrupt` is a share from 0 to 1 and `copies` at least 1, got {corrupt} and {copies}")
    settings, thresholds = settings or UnlearningSettings(), thresholds or Thresholds()
    scopes = Scopes(tuple(forget), tuple(retain))
    kept = scopes.kept("locating by gradients")
    source, read = random.Random(seed), checkpoint
    texts = [
        _copies(checkpoint, each, called, settings, source, corrupt, copies)
        for called, each in ((FORGET, scopes.forget), (RETAIN, kept))
    ]
    names = parameters
    if settings.adapter is not None:
        if per == "neuron":
            raise InputError("an adapter has no neurons of its own; locate `per` tensor or block, or leave it out")
        opened = open_copy(checkpoint, settings, seed=seed)
        read, names = opened.checkpoint, [name.removeprefix(PEFT) for name in opened.parameters]
    elif per == "neuron":
        names = [checkpoint.names.value_parameter(block)[0] for block in range(checkpoint.n_blocks)]
    elif names is None:
        names = trained_parameters(checkpoint, only=settings.only, freeze=settings.freeze)
    total, done = sum(map(len, texts)), 0

    def advanced(some: int, _: int) -> None:
        if progress is not None:
            progress(done + some, total)

    of_forget = mean_gradients(read, texts[0], names, settings.max_tokens, advanced)
    done = len(texts[0])
    of_retain = mean_gradients(read, texts[1], names, settings.max_tokens, advanced)
    prefix = PEFT if settings.adapter is not None else ""
    return _region(read, _grouped(read, of_forget, of_retain, per), thresholds, prefix)


def mean_gradients(
    checkpoint: Checkpoint,
    texts: Sequence[Encoded],
    names: Collection[str],
    max_tokens: int,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Mean over texts of the gradient of the mean loss over each one's answer, summed in float32 or wider.

    Args:
        checkpoint: left as it was.
        texts: prompts with answers.
        names: of the parameters.
        max_tokens: padded tokens whose activations are held at a time.
        progress: called with (texts done, texts in all).

    Returns:
        By name, in the parameters' order, on the host.
    """
    losses, sums, done = nll(texts), dict[str, Tensor](), 0
    with gradients_of(checkpoint.model, names) as wanted:
        lengths = [len(text.ids) for text in texts]
        for part in length_batches(lengths, max_tokens, apart=checkpoint.names.short_context):
            with torch.enable_grad():
                losses(checkpoint, part).sum().backward()
            for name, parameter in wanted.items():
                if parameter.grad is not None:
                    found = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32))
                    sums[name] = sums[name].add_(found) if name in sums else found
                    parameter.grad = None
            done += len(part)
            if progress is not None:
                progress(done, len(texts))
        shapes = {name: parameter.shape for name, parameter in wanted.items()}
    return {
        name: (sums.pop(name) / len(texts)).cpu() if name in sums else torch.zeros(shape)
        for name, shape in shapes.items()
    }


def _copies(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    called: str,
    settings: UnlearningSettings,
    source: random.Random,
    corrupt: float,
    copies: int,
) -> list[Encoded]:
    whole = unended_texts_of(checkpoint, questions, settings, called)
    if corrupt:
        vocabulary = Vocabulary.of(checkpoint)
        whole = corrupted_copies(whole, vocabulary, source, share=corrupt, copies=copies)
    return ended(checkpoint, whole)


@dataclass(frozen=True)
class _Group:
    """Tensors, or one of them, that are measured together, a row or many."""

    name: str
    block: int | None
    component: str
    parameters: tuple[str, ...]
    agreement: Agreement


def _grouped(
    checkpoint: Checkpoint, forget: Mapping[str, Tensor], retain: Mapping[str, Tensor], per: Per
) -> list[_Group]:
    found: dict[str, _Group] = {}
    for name in forget:
        block, component = checkpoint.names.component(name)
        both = [gradients[name] for gradients in (forget, retain)]
        if per == "neuron":
            assert block is not None
            transposed = checkpoint.names.value_parameter(block)[1]
            rows = [each.T if transposed else each for each in both]
            found[name] = _Group(f"blocks.{block}.mlp.out", block, component, (), Agreement.of(*rows))
            continue
        one = Agreement.of(*(each.reshape(1, -1) for each in both))
        place = component.partition(".")[0] if block is None else f"blocks.{block}"
        key = name if per == "tensor" else place
        before = found.get(key)
        found[key] = _Group(
            key,
            block,
            component if per == "tensor" else "",
            (*(before.parameters if before else ()), name),
            before.agreement + one if before else one,
        )
    return list(found.values())


def _region(checkpoint: Checkpoint, groups: Sequence[_Group], thresholds: Thresholds, prefix: str) -> GradientRegion:
    import pandas as pd

    def joined(values: Callable[[Agreement], Float[Tensor, " group"]]) -> Float[Tensor, " row"]:
        return torch.cat([values(group.agreement) for group in groups])

    cosines, magnitudes = joined(lambda one: one.cosine), joined(lambda one: one.magnitude)
    if not bool(torch.isfinite(magnitudes).all()):
        raise InputError(f"{checkpoint.source}: a gradient is not finite, so nothing can be located by it")
    located = thresholds.located(cosines, magnitudes)
    rows = [(group, row) for group in groups for row in range(len(group.agreement.products))]
    neurons = any(not group.parameters for group in groups)
    table = pd.DataFrame(
        {
            "name": [
                f"{group.name}.{row}" if neurons else _listed(group.name, prefix, group.parameters)
                for group, row in rows
            ],
            "block": pd.array([group.block for group, _ in rows], dtype="Int64"),
            "component": [group.component for group, _ in rows],
            "neuron": pd.array([row if neurons else None for _, row in rows], dtype="Int64"),
            "entries": [group.agreement.entries for group, _ in rows],
            "cosine": cosines.tolist(),
            "magnitude": magnitudes.tolist(),
            "retain_magnitude": joined(lambda one: one.retain_magnitude).tolist(),
            "located": located.tolist(),
        }
    )
    chosen = _parameters(zip(rows, located.tolist(), strict=True))
    mu, sigma = thresholds.cuts(cosines, magnitudes)
    return GradientRegion(table, tuple(f"{prefix}{name}" for name in chosen), mu, sigma)


def _listed(name: str, prefix: str, parameters: Sequence[str]) -> str:
    """A tensor of an adapter has the name that peft gives it."""
    return f"{prefix}{name}" if tuple(parameters) == (name,) else name


def _parameters(rows: Iterable[tuple[tuple[_Group, int], bool]]) -> list[str]:
    return list(dict.fromkeys(name for (group, _), found in rows if found for name in group.parameters))
