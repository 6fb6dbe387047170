"""Greedy generation in batches, with left padding and correct masks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from mechinterp.data.conversations import Prompt
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import end_tokens, say_of_ends
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.watching import Progress, evaluating
from mechinterp.models.text.batches import length_batches, pad
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import last_unembedded


def generate(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    suffix: str | None = None,
    prefix: str | None = None,
    known: Mapping[int, str] | None = None,
    see: Callable[[Mapping[int, str]], None] | None = None,
    shared: bool = True,
    **settings: Any,
) -> list[str]:
    """Answer prompts greedily.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts, or conversations in a chat format.
        max_new_tokens: longest response, in tokens.
        suffix: a system prompt appended to every (last) user's text after one space (the paper asks edited models so).
        prefix: one put before every prompt, joined by one space.
        known: responses had before, by the number of their prompt. Batches stay those of a whole run, so that a
            run that was killed ends with the same responses: one that is not wholly known is answered again.
        see: given the responses of each batch, by the number of their prompt, as soon as this process has them.
        shared: several processes share the batches, and all make this call; otherwise this one answers alone.
        settings: of `continue_greedily`.

    Returns:
        The responses without special tokens and outer blanks, in the order of the prompts; "" for an empty one. They
        end before the first of `end_tokens`.
    """
    answers: dict[int, str] = {}

    def add(batch: list[tuple[int, Encoded]]) -> None:
        new = dict(zip((i for i, _ in batch), answers_of(checkpoint, [text for _, text in batch]), strict=True))
        answers.update(new)
        if see is not None:
            see(new)

    known = known or {}
    _continue(
        checkpoint,
        prompts,
        max_new_tokens=max_new_tokens,
        prefix=prefix,
        suffix=suffix,
        done=known.keys(),
        see=add,
        shared=shared,
        **settings,
    )
    new = list(answers.items())
    whole = {**known, **dict(processes.gather(new) if shared else new)}
    return [whole[i] for i in range(len(prompts))]


def answers_of(checkpoint: Checkpoint, texts: Sequence[Encoded]) -> list[str]:
    """What stands behind the prompts, in words: without special tokens and outer blanks, up to the first end token."""
    ends = end_tokens(checkpoint)  # which need be no special ones of the tokenizer's
    new_ids = [list(takewhile(lambda i: i not in ends, text.ids[text.prompt_length :])) for text in texts]
    return [text.strip() for text in checkpoint.tokenizer.batch_decode(new_ids, skip_special_tokens=True)]


def continue_greedily(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], *, max_new_tokens: int, **settings: Any
) -> list[Encoded]:
    """The prompts with the tokens that the checkpoint itself would put after them.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts, or conversations in a chat format.
        max_new_tokens: longest continuation; it ends with the first of `end_tokens` where that comes earlier.
        settings: `max_tokens`: padded tokens per batch, continuations included; `max_batch`: prompts per batch;
            `as_one_batch`: all of them in one, in their order, whatever the others say;
            `prefix`, `suffix`: put around every prompt; `truncate`: cut prompts that leave no room for the continuation
            from the left instead of raising, prefix and suffix stay whole; `called`: what the prompts are called in
            errors; `quiet`: say nothing of the texts and of how answers end; `progress`: called with (prompts done,
            prompts in all) of this process's share.

    Returns:
        Prompt and continuation, at least one token of it, in the order of the prompts.
    """
    found: list[tuple[int, Encoded]] = []
    _continue(checkpoint, prompts, max_new_tokens=max_new_tokens, see=found.extend, **settings)
    return [text for _, text in sorted(processes.gather(found), key=lambda pair: pair[0])]


def continue_tokens(
    checkpoint: Checkpoint,
    sequences: Sequence[Encoded],
    *,
    max_new_tokens: int,
    choosing: Choosing | None = None,
    max_batch: int = 128,
) -> list[Encoded]:
    """Sequences of tokens with those that the checkpoint would put behind them; what was the prompt stays it.

    Args:
        checkpoint: the model; left as it was.
        sequences: of at least one token each, with room for the new ones in the context.
        max_new_tokens: longest continuation; it ends with the first of `end_tokens` where that comes earlier.
        choosing: how each next token is chosen, of the sequences of a batch by their numbers; None: the most probable.
        max_batch: of a batch, as `continue_greedily` has it.

    Returns:
        In the order of the sequences.
    """
    found: list[tuple[int, Encoded]] = []
    asking = _Asking(max_new_tokens, max_batch=max_batch, choosing=choosing)
    _continue_all(checkpoint, sequences, asking, see=found.extend)
    return [text for _, text in sorted(processes.gather(found), key=lambda pair: pair[0])]


Choosing = Callable[[Sequence[int]], LogitsProcessor]
"""Numbers of the sequences of a batch, in its order -> what is done to their logits before the most probable token is
taken."""


@dataclass(frozen=True)
class _Asking:
    """How sequences are continued; see `continue_greedily`."""

    max_new_tokens: int
    max_tokens: int = 16384
    max_batch: int = 128
    as_one_batch: bool = False
    shared: bool = True
    choosing: Choosing | None = None


def _continue(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    see: Callable[[list[tuple[int, Encoded]]], None],
    done: Collection[int] = (),
    max_tokens: int = 16384,
    max_batch: int = 128,
    as_one_batch: bool = False,
    prefix: str | None = None,
    suffix: str | None = None,
    truncate: bool = False,
    called: Sequence[str] | None = None,
    shared: bool = True,
    quiet: bool = False,
    progress: Progress | None = None,
) -> None:
    """Give `see` the continuations of each batch of this process's share, but for batches that are wholly done."""
    sequences = as_fed(
        checkpoint,
        prompts,
        reserve=max_new_tokens,
        truncate=truncate,
        prefix=prefix,
        suffix=suffix,
        called=called,
        quiet=quiet,
    )
    if not quiet:
        say_of_ends(checkpoint, end_tokens(checkpoint))
    asking = _Asking(max_new_tokens, max_tokens, max_batch, as_one_batch, shared)
    _continue_all(checkpoint, sequences, asking, see=see, done=done, progress=progress)


@torch.no_grad()
def _continue_all(
    checkpoint: Checkpoint,
    sequences: Sequence[Encoded],
    asking: _Asking,
    *,
    see: Callable[[list[tuple[int, Encoded]]], None],
    done: Collection[int] = (),
    progress: Progress | None = None,
) -> None:
    """The same of what is in tokens already."""
    pad_id, ends, finished = checkpoint.padding_id, end_tokens(checkpoint), 0
    lengths = [len(sequence.ids) + asking.max_new_tokens for sequence in sequences]
    groups = [list(range(len(sequences)))]
    if not asking.as_one_batch:
        apart = checkpoint.names.short_context
        groups = list(length_batches(lengths, asking.max_tokens, asking.max_batch, apart=apart))
    batches = processes.share(groups) if asking.shared else groups
    total = sum(len(order) for order in batches)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=asking.max_new_tokens, pad_token_id=pad_id, eos_token_id=sorted(ends) or None
    )
    with evaluating(checkpoint.model), last_unembedded(checkpoint), _generating_by(checkpoint.model, greedy):
        for order in batches:
            finished += len(order)
            if all(i in done for i in order):
                continue
            batch = pad([sequences[i] for i in order], pad_id=pad_id, side="left", device=checkpoint.device)
            chosen = (
                {} if asking.choosing is None else {"logits_processor": LogitsProcessorList([asking.choosing(order)])}
            )
            with reading(batch):
                output = checkpoint.model.generate(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, **chosen
                )
            found = []
            for i, new in zip(order, output[:, batch.input_ids.shape[1] :].tolist(), strict=True):
                before = len(list(takewhile(lambda token: token not in ends, new)))
                prompt = sequences[i]
                ids = [*prompt.ids, *new[: before + 1]]
                found.append((i, Encoded.of(ids, prompt.prompt_length, prompt.content)))
            see(found)
            if progress is not None:
                progress(finished, total)


@contextmanager
def _generating_by(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Nothing of the checkpoint's own settings: a repetition penalty among them would be no greedy choice."""
    own = model.generation_config
    try:
        model.generation_config = config
        yield
    finally:
        model.generation_config = own


@contextmanager
def ending(checkpoint: Checkpoint) -> Iterator[None]:
    """For the time of the context the model's own `generate` ends with `end_tokens` too, other settings kept."""
    ends, config = end_tokens(checkpoint), copy.deepcopy(checkpoint.model.generation_config)
    say_of_ends(checkpoint, ends)
    config.eos_token_id = sorted(ends) or None
    with _generating_by(checkpoint.model, config):
        yield
