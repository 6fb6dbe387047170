"""Read-outs: how strongly a model holds to a behaviour, one number for each prompt, on the same texts for every model.

    log_odds         log p(unsafe answer) - log p(safe answer), each over its first m tokens, after the prompt
    unsafe_logprob   log p(unsafe answer) alone
    write            sum over blocks of h_down . W_V w_hat: what the MLPs write along a direction

The first two are sums over tokens, in nats. They have no ceiling: where every answer is safe, and defense says 100%
whatever hides behind it, they still tell how far the unsafe one is. They say nothing of what the model would write by
itself, and of an answer only how it begins.

A read-out is a plain function of a checkpoint, the texts and the numbers of some prompts. Its values can be
differentiated; `read` takes them without a gradient, `in_batches` leaves that to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError, near
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.changing import unit_vector
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.scoring import LOGITS, token_logprobs
from mechinterp.models.passes.sequences import OnDevices
from mechinterp.models.passes.watching import Progress, evaluating, watching
from mechinterp.models.text.batches import length_batches, pad, to_device, token_budget
from mechinterp.models.text.tokens import Encoded
from mechinterp.models.unembedding import unembedded_at

WritePosition = Literal["prompt_last", "response"]
"""Where a write is read: the last prompt token, or the mean over the tokens of the unsafe answer that are read."""

ANSWER_TOKENS = 16
"""Tokens of an answer that are read, m."""


@dataclass(frozen=True)
class ReadoutTexts:
    """Prompts, each followed by the beginning of an unsafe and of a safe answer, as every model is fed them.

    The columns that predict an answer are those from the last token of its prompt to the last but one of the text.

    Attributes:
        unsafe: prompt and first tokens of the unsafe answer.
        safe: the same prompt and first tokens of the safe answer.
    """

    unsafe: tuple[Encoded, ...]
    safe: tuple[Encoded, ...]

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        pairs: Sequence[AnyPair],
        *,
        unsafe: Sequence[str | Encoded] | None = None,
        tokens: int = ANSWER_TOKENS,
        truncate: bool = False,
    ) -> ReadoutTexts:
        """Texts of pairs, in the base's tokens and chat format.

        Args:
            base: whose tokenizer and format they are fed in, to every model.
            pairs: prompts, with a safe and an unsafe answer.
            unsafe: other unsafe answers, one per pair: texts, or the base's own from `continue_greedily`, of which
                only what comes after the prompt is taken. The data's if not given.
            tokens: of each answer, at most.
            truncate: cut prompts that leave no room for an answer from the left instead of raising.

        Raises:
            InputError: for no pairs, no tokens, or an empty or too long text.
        """
        if not pairs:
            raise InputError("there are no pairs to read behaviour on; give at least one")
        if tokens < 1:
            raise InputError(f"the number of an answer's tokens that are read must be at least 1, got {tokens}")
        if unsafe is not None and len(unsafe) != len(pairs):
            raise InputError(f"{many(len(pairs), 'pair')} but {many(len(unsafe), 'unsafe answer')}")
        prompts = [pair.prompt for pair in pairs]
        heads = as_fed(
            base,
            prompts,
            truncate=truncate,
            reserve=tokens,
        )

        def after(responses: Sequence[str]) -> list[Sequence[int]]:  # the prompts are whole here, cut in `heads`
            wholes = as_fed(base, prompts, responses, max_length=ANY_LENGTH, quiet=True)
            return [_answer(whole) for whole in wholes]

        given = [pair.unsafe for pair in pairs] if unsafe is None else list(unsafe)
        of_texts = after([own if isinstance(own, str) else pair.unsafe for own, pair in zip(given, pairs, strict=True)])
        tails = [text if isinstance(own, str) else _answer(own) for own, text in zip(given, of_texts, strict=True)]
        for number, tail in enumerate(tails):
            if not len(tail):
                raise InputError(f"the unsafe answer to prompt {number} has no token")
        return cls(
            unsafe=_joined(heads, tails, tokens),
            safe=_joined(heads, after([pair.safe for pair in pairs]), tokens),
        )

    def __len__(self) -> int:
        return len(self.unsafe)

    def __repr__(self) -> str:
        return one_line(self, many(len(self), "prompt"))

    def chosen(self, numbers: Sequence[int]) -> ReadoutTexts:
        """Some of the prompts, in the order of their numbers here."""
        return ReadoutTexts(tuple(self.unsafe[i] for i in numbers), tuple(self.safe[i] for i in numbers))


Readout = Callable[[Checkpoint, ReadoutTexts, Sequence[int]], Float[Tensor, " prompt"]]
"""Values of some prompts of the texts, by their numbers: float64 on the host, differentiable; one forward pass."""


def log_odds(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> Float[Tensor, " prompt"]:
    """log p(unsafe answer) - log p(safe answer), in nats: sums over the tokens that are read."""
    some = texts.chosen(numbers)
    sums = torch.stack([each.sum() for each in token_logprobs(checkpoint, [*some.unsafe, *some.safe])])
    return sums[: len(numbers)] - sums[len(numbers) :]


def unsafe_logprob(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> Float[Tensor, " prompt"]:
    """log p(unsafe answer), in nats: the sum over the tokens that are read."""
    return torch.stack([each.sum() for each in token_logprobs(checkpoint, texts.chosen(numbers).unsafe)])


def write(direction: Float[Tensor, " d_model"], position: WritePosition = "prompt_last") -> Readout:
    """The write along a direction, summed over blocks: the MLPs' own output, their biases in it, times w_hat.

    Args:
        direction: of any length but zero.
        position: where it is read.

    Raises:
        InputError: for an unknown position; when it is read, for a direction that does not fit.
    """
    if position not in get_args(WritePosition):
        meant = near(position, get_args(WritePosition))
        raise InputError(f"a write is read at 'prompt_last' or over the 'response', got {position!r}{meant}")

    def read_write(checkpoint: Checkpoint, texts: ReadoutTexts, numbers: Sequence[int]) -> Tensor:
        unit = OnDevices(unit_vector(direction, checkpoint.names.d_model).cpu())
        some = texts.chosen(numbers).unsafe
        batch = pad(some, pad_id=checkpoint.padding_id, device=checkpoint.device)
        spans = [text.positions("last" if position == "prompt_last" else "response") for text in some]
        lengths = torch.tensor([len(span) for span in spans])
        rows = torch.arange(len(some)).repeat_interleave(lengths)
        columns = torch.tensor([place for span in spans for place in span])
        total = torch.zeros(len(rows), dtype=torch.float64)

        def add(_: str, values: Tensor) -> None:
            nonlocal total
            flat = to_device(rows * batch.input_ids.shape[1] + columns, values.device)
            taken = values.reshape(-1, values.shape[-1])[flat]  # OPT's MLPs see their tokens in one row
            wide = taken.to(torch.promote_types(taken.dtype, torch.float32))
            total = total + (wide @ unit.on(wide.device).to(wide)).cpu().double()

        blocks = range(checkpoint.n_blocks)
        sites = [checkpoint.names.site(f"blocks.{block}.mlp.out.hook_out") for block in blocks]
        width = batch.input_ids.shape[1]
        with (
            reading(batch),
            unembedded_at(checkpoint, [0], [0], width),
            watching(checkpoint.model, sites, add, stop=False),
        ):
            checkpoint.model(**batch.inputs(), use_cache=False)
        return torch.zeros(len(some), dtype=torch.float64).index_add(0, rows, total) / lengths

    return read_write


READOUTS: Mapping[str, Readout] = {"log_odds": log_odds, "unsafe_logprob": unsafe_logprob}
"""Those that need nothing but texts, by name."""


def in_batches(
    checkpoint: Checkpoint,
    texts: ReadoutTexts,
    readout: Readout,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    max_tokens: int | None = None,
    shared: bool = True,
) -> Generator[tuple[list[int], Float[Tensor, " prompt"]]]:
    """Values of all prompts a batch at a time, for a backward pass after each: memory does not grow with the prompts.

    Args:
        checkpoint: the model; in evaluation mode meanwhile.
        texts, readout: what is read.
        groups: numbers of prompts that no batch mixes with others; all prompts together if not given.
        max_tokens: padded tokens per batch, both answers counted; by default what fits the device, and fewer with a
            large vocabulary.
        shared: several processes share the batches, and all make this call; otherwise this one reads alone.

    Returns:
        The numbers of the prompts of each batch, and their values.
    """
    scored = max(len(text.ids) - text.prompt_length for text in (*texts.unsafe, *texts.safe))
    vocabulary = checkpoint.model.config.get_text_config().vocab_size
    budget = (max_tokens or token_budget(checkpoint.device)) // 2  # two texts a prompt
    at_most, batches = max(1, LOGITS // (vocabulary * 2 * scored)), list[list[int]]()
    for numbers in [range(len(texts))] if groups is None else groups:
        longest = [max(len(texts.unsafe[i].ids), len(texts.safe[i].ids)) for i in numbers]
        found = length_batches(longest, budget, at_most, apart=checkpoint.names.short_context)
        batches += [[numbers[i] for i in batch] for batch in found]
    with evaluating(checkpoint.model):
        for order in processes.share(batches) if shared else batches:
            yield order, readout(checkpoint, texts, order)


@torch.no_grad()
def read(
    checkpoint: Checkpoint,
    texts: ReadoutTexts,
    readout: Readout = log_odds,
    *,
    max_tokens: int | None = None,
    shared: bool = True,
    progress: Progress | None = None,
) -> Float[Tensor, " prompt"]:
    """Values of all prompts, without a gradient.

    Args:
        checkpoint: the model; left as it was.
        texts, readout, max_tokens, shared: as `in_batches` takes them.
        progress: called with (prompts done, prompts in all); of this process's share only as far as it goes.

    Returns:
        float64 on the host, in the order of the texts; NaN where a logit is not finite.
    """
    found: list[tuple[int, float]] = []
    for order, values in in_batches(checkpoint, texts, readout, max_tokens=max_tokens, shared=shared):
        found += zip(order, values.tolist(), strict=True)
        if progress is not None:
            progress(len(found), len(texts))
    found = sorted(processes.gather(found) if shared else found)
    return torch.tensor([value for _, value in found], dtype=torch.float64)


def _answer(text: Encoded) -> Sequence[int]:
    return text.ids[text.prompt_length :]


def _joined(heads: Sequence[Encoded], tails: Sequence[Sequence[int]], tokens: int) -> tuple[Encoded, ...]:
    return tuple(
        Encoded.of([*head.ids, *tail[:tokens]], head.prompt_length, head.content)
        for head, tail in zip(heads, tails, strict=True)
    )
