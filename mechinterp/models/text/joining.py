"""Prompts, and prompts with responses after them, as tokens: a prompt's are the same in both.

The two are tokenised together, as the model would meet them: a SentencePiece tokenizer puts a blank of its own before a
text that stands alone. Where it makes one token of the prompt's end and the response's beginning, as with a prompt that
ends in a blank, the last prompt token would move: there the prompt keeps the tokens that it has alone, which are those
that generation goes on from, the response gets those that it has after another word, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mechinterp.data.counting import many
from mechinterp.models.text.special_tokens import Around, shown

logger = logging.getLogger(__name__)

_WORDS = ("a", ".", "1", "\n")  # a response is tokenised after one of them where its prompt's end would swallow it


class Joining:
    """Tokenises prompts, or prompts with a response each, and counts what did not go as a tokenizer should."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, around: Around) -> None:
        self._tokenizer, self._around = tokenizer, around
        self._merged: list[str] = []

    def tokens(
        self, prompts: Sequence[str], responses: Sequence[str] | None, names: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of the prompts, and of what comes after them.

        Args:
            prompts: texts.
            responses: one per prompt, joined by one space.
            names: what the prompts are called.
        """
        heads = self._ids(prompts)
        if responses is None:
            return heads, [[] for _ in heads]
        wholes = self._ids([f"{prompt} {response}" for prompt, response in zip(prompts, responses, strict=True)])
        tails = []
        for name, prompt, head, whole, response in zip(names, prompts, heads, wholes, responses, strict=True):
            if whole[: len(head)] == head and not prompt[-1:].isspace():
                tails.append(whole[len(head) :])
                continue
            tails.append(
                self._after_a_word(response)
            )  # nor does a blank pass to it that some tokenizers drop at an end
            if [*head, *tails[-1]] != whole:
                self._merged.append(
                    f"{name}, ids ... {head[-3:]} and {shown(tails[-1])}, together {_departed(head, whole)}"
                )
        return heads, tails

    def contents(self, prompts: Sequence[str], heads: Sequence[Sequence[int]]) -> list[range]:
        """Which of the prompts' tokens are the user's text: all, since nothing is put around it."""
        return [range(len(head)) for head in heads]

    def ends(self, prompt: str, head: Sequence[int], prefix: str | None, suffix: str | None) -> tuple[int, int]:
        """How many tokens of a query are never cut: at its left what the tokenizer adds and the prefix; the suffix.

        Args:
            prompt: the query, prefix and suffix in it.
            head: its ids.
            prefix, suffix: what stands at its ends.
        """
        left, right = self._around.in_front(head), 0
        if prefix:
            left = common(self._ids([f"{prefix} "])[0], head)
        if suffix:
            right = len(head) - common(self._ids([prompt[: -len(suffix) - 1]])[0], head)
        return left, right

    def warn(self) -> None:
        """Say where the tokenizer would have merged prompt and response, and what it adds to their end."""
        if self._merged:
            logger.warning(
                "%s where the tokenizer sets no boundary before the response, as after a blank: the tokens stay "
                "those of the prompt alone (%s); take the blank off its end",
                many(len(self._merged), "prompt ends", "prompts end"),
                self._merged[0],
            )
        if after := self._around.after:
            names = [str(name) for name in self._tokenizer.convert_ids_to_tokens(list(after))]
            logger.warning(
                "the tokenizer puts %s (ids %s) after every text: left out, since a prompt goes on",
                " ".join(names),
                shown(after),
            )

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        # verbose=False: the tokenizer's own length warning; the caller raises instead
        return [self._around.open_end(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]

    def _after_a_word(self, response: str) -> list[int]:
        """A response's ids where it follows on something that it does not merge with."""
        for word in _WORDS:
            alone, whole = self._ids([word, f"{word} {response}"])
            if alone and len(whole) > len(alone) and whole[: len(alone)] == alone:
                return whole[len(alone) :]
        return list(self._tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"])


def _departed(head: Sequence[int], whole: Sequence[int]) -> str:
    """Where a prompt with its response departs from the prompt alone."""
    same = common(head, whole)
    return f"... {list(whole[max(0, same - 1) : same + 3])}"


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
