"""Greedy generation in batches, with left padding and correct masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from mechinterp import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.tokens import Encoded, encode, length_batches, pad, padding_id
from mechinterp.models.watching import Progress, evaluating


def generate(
    checkpoint: Checkpoint, prompts: Sequence[str], *, max_new_tokens: int, suffix: str | None = None, **settings: Any
) -> list[str]:
    """Answer prompts greedily.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts.
        max_new_tokens: longest response, in tokens.
        suffix: a system prompt appended to every prompt after one space (the paper evaluates edited models with one).
        settings: of `continue_greedily`.

    Returns:
        The responses without special tokens and outer blanks, in the order of the prompts; "" for an empty one.
    """
    texts = [f"{prompt} {suffix}" if suffix else prompt for prompt in prompts]
    whole = continue_greedily(checkpoint, texts, max_new_tokens=max_new_tokens, **settings)
    answers = checkpoint.tokenizer.batch_decode(
        [list(text.ids[text.prompt_length :]) for text in whole], skip_special_tokens=True
    )
    return [answer.strip() for answer in answers]


@torch.no_grad()
def continue_greedily(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    max_tokens: int = 16384,
    max_batch: int = 128,
    truncate: bool = False,
    progress: Progress | None = None,
) -> list[Encoded]:
    """The prompts with the tokens that the checkpoint itself would put after them.

    Args:
        checkpoint: the model; left as it was.
        prompts: texts.
        max_new_tokens: longest continuation; it ends with the end-of-sequence token where that comes earlier.
        max_tokens: padded tokens per batch, continuations included.
        max_batch: prompts per batch.
        truncate: cut prompts that leave no room for the continuation from the left instead of raising.
        progress: called with (prompts done, prompts in all) of this process's share.

    Returns:
        Prompt and continuation, at least one token of it, in the order of the prompts.
    """
    sequences = encode(
        checkpoint.tokenizer,
        prompts,
        max_length=checkpoint.names.context_length,
        reserve=max_new_tokens,
        truncate=truncate,
    )
    pad_id, ends, done = padding_id(checkpoint.tokenizer), _end_tokens(checkpoint), 0
    lengths = [len(sequence.ids) + max_new_tokens for sequence in sequences]
    batches = processes.share(
        list(length_batches(lengths, max_tokens, max_batch, apart=checkpoint.names.short_context))
    )
    total = sum(len(order) for order in batches)
    found: list[tuple[int, Encoded]] = []
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=pad_id, eos_token_id=sorted(ends) or None
    )
    with evaluating(checkpoint.model), _generating_by(checkpoint.model, greedy):
        for order in batches:
            batch = pad([sequences[i] for i in order], pad_id=pad_id, side="left", device=checkpoint.device)
            output = checkpoint.model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            for i, new in zip(order, output[:, batch.input_ids.shape[1] :].tolist(), strict=True):
                before = len(list(takewhile(lambda token: token not in ends, new)))
                prompt = sequences[i].ids
                found.append((i, Encoded.of([*prompt, *new[: before + 1]], len(prompt))))
            done += len(order)
            if progress is not None:
                progress(done, total)
    return [text for _, text in sorted(processes.gather(found), key=lambda pair: pair[0])]


@contextmanager
def _generating_by(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Nothing of the checkpoint's own settings: a repetition penalty among them would be no greedy choice."""
    own = model.generation_config
    try:
        model.generation_config = config
        yield
    finally:
        model.generation_config = own


def _end_tokens(checkpoint: Checkpoint) -> frozenset[int]:
    """The tokens after which generation stops."""
    ends = checkpoint.model.generation_config.eos_token_id
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)
