"""How far an edit or a tuning moves a model's next-token distributions on texts that it should not touch.

    the mean over inputs of JSD(base's next-token distribution, tuned model's), in bits, at one of two positions:
    last      after the last token of the prompt: how the answer begins
    response  along a given answer, fed to both: the mean over its tokens, including the first

0 is a model that says the same with the same confidence, 1 one that never says what the base would. A small divergence
on a few benign prompts does not show that nothing else changed, and along given answers neither model goes its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.errors import InputError, near
from mechinterp.measures.divergence import jensen_shannon, kullback_leibler
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches, pad
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import unembedded_at

Opened = Callable[[], AbstractContextManager[Checkpoint]]
"""Gives a checkpoint for the time of a context, and again when it is called again."""

POSITIONS = ("last", "response")

Kind = Literal["jsd", "kl"]

_LOGITS = 2**26  # numbers of one batch's logits: 256 MiB in float32
_TOKENS = 2048  # of a batch, where few of them have logits
_WIDE = 2**22  # numbers of the distributions compared at a time: 32 MiB in float64


@dataclass(frozen=True)
class Divergence:
    """JSD of every input, in bits; or KL, in nats.

    Attributes:
        values: [input], each the mean over the tokens of its position; nan where a logit is not finite.
        position: `last` or `response`.
        non_finite: inputs with a logit that is not finite; they make the mean nan.
    """

    values: Float[Tensor, " input"]
    position: str
    non_finite: int

    def mean(self, *, seed: int = 0) -> Interval:
        """Mean over the inputs with its percentile bootstrap."""
        return bootstrap(lambda weights: weights @ self.values, len(self.values), seed=seed)


@torch.no_grad()
def next_token_divergence(
    open_base: Opened,
    open_tuned: Opened,
    prompts: Sequence[Prompt],
    answers: Sequence[str] | None = None,
    *,
    position: str = "last",
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
    kind: Kind = "jsd",
    memory: int = 2**28,
    progress: Progress | None = None,
) -> Divergence:
    """JSD between the next-token distributions of two checkpoints on the same tokens.

    The base's logits are kept for a group of batches while the tuned model meets the same tokens, so that the two need
    not be there together: `open_tuned` may apply an edit to the base itself. Memory does not grow with the prompts.

    Args:
        open_base: gives the base.
        open_tuned: gives the model to set against it; both see the base's tokens.
        prompts: texts, or conversations in a chat format.
        answers: one per prompt, joined by one space; for `response`.
        position: see the module.
        prefix, suffix: text around every prompt, in both models.
        truncate: cut long prompts from the left instead of raising.
        kind: `jsd`, or `kl`, KL(base || tuned) in nats.
        memory: numbers of the base's logits kept at a time (times 4 bytes in float32): how often the two take turns.
        progress: called with (prompts done, prompts in all) of this process's share.

    Raises:
        InputError: for no prompt, one too long, `response` without answers, or models of unlike vocabularies.
    """
    if position not in POSITIONS:
        raise InputError(f"position must be one of {POSITIONS}, got {position!r}{near(position, POSITIONS)}")
    if not prompts:
        raise InputError("there are no benign prompts to compare the models on")
    if position == "response" and answers is None:
        raise InputError("the divergence along responses needs an answer for every prompt")
    with open_base() as base:
        tokens = partial(
            as_fed,
            prompts=prompts,
            responses=answers if position == "response" else None,
            max_length=base.names.context_length,
            truncate=truncate,
            prefix=prefix,
            suffix=suffix,
        )
        texts = tokens(base)
        vocabulary, apart = base.model.config.get_text_config().vocab_size, base.names.short_context
        tokenizer, pad_id = base.tokenizer, base.padding_id
    rows = [_predicting(text, position) for text in texts]
    most = max(1, _LOGITS // vocabulary)
    if position == "last":  # one of their positions is unembedded
        most = max(most, _TOKENS)
    batches = processes.share(list(length_batches([len(t.ids) for t in texts], most, max_batch=64, apart=apart)))
    found: list[tuple[int, float]] = []
    total = sum(map(len, batches))
    for group in _groups(batches, lambda order: sum(len(rows[i]) for i in order) * vocabulary, memory):
        with open_base() as base:
            kept = [logits_at(base, [texts[i] for i in order], [rows[i] for i in order], pad_id) for order in group]
        with open_tuned() as tuned:
            if tuned.tokenizer is not tokenizer and tokens(tuned) != texts:
                raise InputError(f"{tuned.source}: its tokenizer makes other tokens of the prompts than the base's")
            tokenizer = tuned.tokenizer  # the next groups need not look again
            for order in group:
                after = logits_at(tuned, [texts[i] for i in order], [rows[i] for i in order], pad_id)
                before = kept.pop(0)
                if before.shape != after.shape:
                    raise InputError(
                        f"the models cannot be compared: {before.shape[1]} and {after.shape[1]} tokens in vocabulary"
                    )
                values = _divergences(before, after, kind).split([len(rows[i]) for i in order])
                found += [(i, float(part.mean())) for i, part in zip(order, values, strict=True)]
        if progress is not None:
            progress(len(found), total)
    values = torch.tensor([value for _, value in sorted(processes.gather(found))], dtype=torch.float64)
    return Divergence(values, position, int((~torch.isfinite(values)).sum()))


def _predicting(text: Encoded, position: str) -> range:
    """The columns whose logits are the distributions wanted."""
    end = text.prompt_length if position == "last" else len(text.ids) - 1
    return range(text.prompt_length - 1, end)


def _groups(batches: Sequence[list[int]], size: Callable[[list[int]], int], memory: int) -> Iterator[list[list[int]]]:
    """Batches in order, as many at a time as fit."""
    group: list[list[int]] = []
    used = 0
    for order in batches:
        if group and used + size(order) > memory:
            yield group
            group, used = [], 0
        group.append(order)
        used += size(order)
    if group:
        yield group


def logits_at(
    checkpoint: Checkpoint, texts: Sequence[Encoded], rows: Sequence[range], pad_id: int
) -> Float[Tensor, "row vocabulary"]:
    """Logits at the wanted columns of each sequence of a batch, one after the other, in the model's own type."""
    batch = pad(texts, pad_id=pad_id, side="right", device=checkpoint.device)
    where = [row for row, columns in enumerate(rows) for _ in columns]
    columns = [column for columns in rows for column in columns]
    width = batch.input_ids.shape[1]
    with evaluating(checkpoint.model), reading(batch), unembedded_at(checkpoint, where, columns, width):
        logits: Tensor = checkpoint.model(**batch.inputs(), use_cache=False).logits
    return logits[0]


def _divergences(
    before: Float[Tensor, "row vocabulary"], after: Float[Tensor, "row vocabulary"], kind: Kind
) -> Float[Tensor, " row"]:
    parts, at_a_time = [], max(1, _WIDE // before.shape[1])
    for one, other in zip(before.split(at_a_time), after.split(at_a_time), strict=True):
        one, other = one.to(before.device), other.to(before.device)
        if kind == "kl":
            parts.append(kullback_leibler(one, other).cpu())
        else:
            parts.append(jensen_shannon(*(part.double().softmax(1) for part in (one, other))).cpu())
    return torch.cat(parts)
