"""Contexts of an edit: texts that the model itself writes, in front of which, and with which, a fact shall hold.

Five openings, each continued by tokens drawn from the five most probable ones, as the released code has it. There they
are drawn once a process and not seeded; here they depend on the seed and the model, and stand in the edit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from mechinterp.errors import InputError
from mechinterp.methods.facts.requests import BARE, open_text
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_tokens

OPENINGS = ("The", "Therefore", "Because", "I", "You")
"""What the texts begin with."""

_MOST_PROBABLE = 5


def generated_contexts(checkpoint: Checkpoint, lengths: Sequence[tuple[int, int]], *, seed: int) -> tuple[str, ...]:
    """The bare context, and texts of the model's own, each with ". {}" after it.

    Args:
        checkpoint: the model; left as it was.
        lengths: (tokens of a text, its opening included; texts of this length, dealt out over the openings).
        seed: of the draws.
    """
    contexts = [BARE]
    generator = torch.Generator().manual_seed(seed)
    for tokens, texts in lengths:
        each = max(1, texts // len(OPENINGS)) if texts else 0
        starts = [open_text(checkpoint, opening) for opening in OPENINGS for _ in range(each)]
        if not starts:
            continue
        new = max(1, tokens - min(len(start.ids) for start in starts))

        def choosing(numbers: Sequence[int], new: int = new) -> LogitsProcessor:
            return _AmongTheFirst(torch.rand(len(numbers), new, generator=generator, dtype=torch.float64))

        found = continue_tokens(checkpoint, starts, max_new_tokens=new, choosing=choosing)
        for text in found:
            ids = list(text.ids)[: max(tokens, text.prompt_length + 1)]
            written = checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
            contexts.append(f"{' '.join(str(written).replace('{', ' ').replace('}', ' ').split())}. {BARE}")
    return tuple(contexts)


def check_contexts(contexts: Sequence[str]) -> tuple[str, ...]:
    """The contexts, if each has one `{}` and the first is the bare one.

    Raises:
        InputError: otherwise.
    """
    if not contexts or contexts[0] != BARE:
        raise InputError("the first context of an edit is the bare one, {}")
    if wrong := [context for context in contexts if context.count(BARE) != 1]:
        raise InputError(f"a context has one {{}} for the prompt, this has not: {wrong[0]!a:.80}")
    return tuple(contexts)


def contexts_for(
    checkpoint: Checkpoint, contexts: Sequence[str] | None, lengths: Sequence[tuple[int, int]], seed: int
) -> tuple[str, ...]:
    """Those that are given, or else those that the model writes.

    Raises:
        InputError: as `check_contexts`.
    """
    return generated_contexts(checkpoint, lengths, seed=seed) if contexts is None else check_contexts(contexts)


class _AmongTheFirst(LogitsProcessor):
    """Leaves of each row one of its most probable tokens, drawn by their probabilities."""

    def __init__(self, uniforms: Tensor) -> None:
        self.uniforms, self.step = uniforms, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        values, tokens = scores.double().topk(min(_MOST_PROBABLE, scores.shape[1]), dim=1)
        sums = values.softmax(1).cumsum(1)
        wanted = self.uniforms[:, self.step, None].to(sums.device).contiguous()
        self.step += 1
        chosen = torch.searchsorted(sums, wanted, right=True).clamp_max(sums.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens.gather(1, chosen), 0.0)
