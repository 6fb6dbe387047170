"""Texts as tokens: what is fed, which positions count, and how sequences are padded into batches.

A response is joined to its prompt by one space. Sequences longer than the context are an error unless truncation is
asked for, which then removes tokens on the left of the prompt: the harmful question stands at its right. What the
tokenizer itself puts in front (a BOS) stays. Of what may not have been meant, it is said: special tokens that a text
spells out, cut headers of turns, prompts whose end merges with the response.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.models.text.cutting import Cut, keep_right
from mechinterp.models.text.joining import Joining, common
from mechinterp.models.text.special_tokens import Around, SpelledOut

Position = str
"""`last`, `mean`, `response`, `all` or `generated:N`, see `Encoded.positions`."""

_CHUNK = 512  # texts tokenised at a time

POSITIONS = ("last", "mean", "response", "all", "generated:N")


def generated_tokens(position: Position) -> int | None:
    """The N of `generated:N`, None for every other position.

    Raises:
        InputError: if there is no such position.
    """
    kind, separator, number = position.partition(":")
    if kind == "generated" and number.isdecimal() and int(number) > 0:
        return int(number)
    if separator or position not in POSITIONS:
        raise InputError(f"position must be one of {POSITIONS}, with N at least 1, got {position!r}")
    return None


@dataclass(frozen=True)
class Encoded:
    """One sequence of token ids, of which the first `prompt_length` are the prompt; four bytes a token."""

    ids: array[int]
    prompt_length: int

    @classmethod
    def of(cls, ids: Sequence[int], prompt_length: int) -> Encoded:
        """From any sequence of ids."""
        return cls(array("i", ids), prompt_length)

    def positions(self, position: Position) -> range:
        """The token indices that a position means.

        `last`: the last prompt token; `mean`: all prompt tokens; `response`: the tokens after the prompt;
        `generated:N`: at most N of them; `all`: all.
        """
        if (wanted := generated_tokens(position)) is not None:
            return range(self.prompt_length, min(self.prompt_length + wanted, len(self.ids)))
        if position == "last":
            return range(self.prompt_length - 1, self.prompt_length)
        if position == "mean":
            return range(self.prompt_length)
        if position == "response":
            return range(self.prompt_length, len(self.ids))
        return range(len(self.ids))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str] | None = None,
    *,
    max_length: int,
    truncate: bool = False,
    reserve: int = 0,
    prefix: str | None = None,
    suffix: str | None = None,
    called: Sequence[str] | None = None,
    quiet: bool = False,
) -> list[Encoded]:
    """Tokenise prompts, or prompts with the responses teacher-forced after them.

    Args:
        prompts: texts; special tokens are added as the tokenizer does (a BOS where it has one).
        responses: one per prompt, joined by one space.
        max_length: context length in tokens.
        truncate: cut long prompts from the left instead of raising.
        reserve: tokens to leave free at the end, for generation.
        prefix: text before every prompt, see `wrapped`; like the suffix it is never cut, and counts as prompt.
        suffix: text after every prompt.
        called: what each prompt is called in errors; by default "prompt" and its number.
        quiet: say nothing of special tokens in the texts, as the caller has: see `special_tokens` and `joining`.

    Raises:
        InputError: for an empty prompt or response, or one that is too long and `truncate` is off, or whose prefix and
            suffix leave no room for it; it names the row.
    """
    if not prompts:
        return []
    if responses is not None and len(responses) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(responses)} responses")
    around = Around.of(tokenizer)
    joining, spelled, cut = Joining(tokenizer, around), SpelledOut(tokenizer, around), Cut()
    names = [f"prompt {row}" for row in range(len(prompts))] if called is None else called
    encoded = []
    for start in range(0, len(prompts), _CHUNK):  # a tokenizer's own output is many times larger than the ids
        rows = slice(start, start + _CHUNK)
        texts = [wrapped(prompt, prefix, suffix) for prompt in prompts[rows]]
        heads, tails = joining.tokens(texts, None if responses is None else responses[rows], names[rows])
        for row, (text, head, tail) in enumerate(zip(texts, heads, tails, strict=True), start):
            if not prompts[row].strip():
                raise InputError(f"{names[row]} is empty")
            if responses is not None and not responses[row].strip():
                raise InputError(f"response {row} is empty")
            spelled.look(names[row], text, head)
            if responses is not None:
                spelled.look(f"response {row}", responses[row], tail)
            room = max_length - reserve - len(tail)
            if len(head) > room:
                left, right = _ends(joining, around, head, prompts[row], prefix, suffix)
                if not truncate or room <= left + right:
                    fixed = {"prefix and suffix": left + right if prefix or suffix else 0, "its response": len(tail)}
                    answer = f"response {row}" if called is None else f"the response of {names[row]}"
                    given = f"{names[row]} has {len(head)} tokens, {max(room, 0)} fit into the context of {max_length}"
                    useless = room <= left + right  # to cut it
                    raise InputError(_too_long(given, answer, {**fixed, "new tokens": reserve}, max_length, useless))
                whole, head = head, keep_right(head, room, left)
                cut.add(names[row], head, spelled.among(whole[left : left + len(whole) - len(head)]))
            encoded.append(Encoded.of([*head, *tail], len(head)))
    cut.warn(len(prompts), max_length)
    if not quiet:
        joining.warn()
        spelled.warn()
    return encoded


def _too_long(given: str, answer: str, fixed: Mapping[str, int], context: int, useless: bool) -> str:
    """Why a text does not fit into the context, and what helps: nothing that was done already, or that would not do.

    Args:
        given: how long the query is, and how much of it fits.
        answer: what its response is called.
        fixed: tokens of prefix and suffix, of the response, and those left free for generation: what is never cut.
        context: how many tokens fit.
        useless: whether nothing of the prompt would be left, were it cut.
    """
    longer = "or use a model with a longer context"
    if (new := fixed["new tokens"]) >= context:
        return f"{new} new tokens leave no room in the context of {context}; ask for fewer (--max-new-tokens) {longer}"
    if (response := fixed["its response"]) >= context:
        return (
            f"{answer} is too long: it has {response} tokens, and the context of {context} must hold it with its "
            f"prompt; shorten it or leave it out, {longer}"
        )
    taken = ", ".join(f"{name} take{'s' * (name == 'its response')} {n}" for name, n in fixed.items() if n)
    remedy = f"shorten {'that' if taken else 'it'}" if useless else "truncate from the left (--truncate)"
    return f"{given}{f' ({taken})' if taken else ''}; {remedy} {longer}"


def wrapped(prompt: str, prefix: str | None = None, suffix: str | None = None) -> str:
    """A query: the prompt between prefix and suffix, each joined to it by one space."""
    return " ".join(part for part in (prefix, prompt, suffix) if part)


def _ends(
    joining: Joining, around: Around, ids: Sequence[int], prompt: str, prefix: str | None, suffix: str | None
) -> tuple[int, int]:
    """How many tokens of a query are never cut: at its left what the tokenizer adds and the prefix, then the suffix."""
    left, right = around.in_front(ids), 0
    if prefix:
        left = common(joining.alone(f"{prefix} "), ids)
    if suffix:
        right = len(ids) - common(joining.alone(wrapped(prompt, prefix)), ids)
    return left, right
