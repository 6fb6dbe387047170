"""Special tokens: those that a tokenizer puts around every text, and those that a text spells out.

A tokenizer reads `<|im_end|>`, `</s>` or `<pad>` in a text as the token itself, whatever was meant, and a text that
begins with `<s>` gets a second one where the tokenizer adds its own. Nothing is taken away: it is said, with the first
ids. What stands around a text is found by tokenising a word with and without special tokens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_WORDS = ("a", "the", "1", ".")  # one that the tokenizer knows is enough
_IDS = 8  # shown


@dataclass(frozen=True)
class Around:
    """What a tokenizer adds to every text of its own accord.

    Attributes:
        before: ids in front, such as a BOS.
        after: ids at the end, such as an EOS.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Around:
        """Found on a word that the tokenizer makes tokens of; nothing where it knows none."""
        for word in _WORDS:
            bare = list(tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"])
            whole = list(tokenizer(word, verbose=False)["input_ids"])
            for start in range(len(whole) - len(bare) + 1):
                if bare and whole[start : start + len(bare)] == bare:
                    return cls(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
        return cls()

    def in_front(self, ids: Sequence[int]) -> int:
        """How many tokens of a text are those in front of it."""
        return len(self.before) if tuple(ids[: len(self.before)]) == self.before else 0

    def open_end(self, ids: Sequence[int]) -> list[int]:
        """The ids without those at the end: a text that something comes after has not ended."""
        kept = len(ids) - len(self.after)
        return list(ids[:kept] if tuple(ids[kept:]) == self.after else ids)


@dataclass
class SpelledOut:
    """Looks through texts for special tokens that they spell out, and says at the end what was found.

    Attributes:
        tokenizer: of the texts.
        around: what it adds itself.
        looked: texts looked through.
    """

    tokenizer: PreTrainedTokenizerBase
    around: Around
    looked: int = 0
    _found: dict[str, list[str]] = field(default_factory=dict)
    _twice: list[str] = field(default_factory=list)

    def look(self, name: str, text: str, ids: Sequence[int]) -> None:
        """Look through a text.

        Args:
            name: what it is called.
            text: as given.
            ids: its tokens, those added in front among them.
        """
        self.looked += 1
        if self._pattern is None or not self._pattern.search(text):
            return
        front = self.around.in_front(ids)
        own = ids[front:]
        first = self._pattern.match(text.lstrip())
        twice = first is not None and self._tokens[first[0]] in self.around.before[:front]
        if twice and first is not None and self._tokens[first[0]] in own:
            self._twice.append(f"{name} begins with {first[0]!r}, ids {shown(ids)}")
            text = text.lstrip()[first.end() :]
        for token in dict.fromkeys(self._pattern.findall(text)):
            if (number := self._tokens[token]) in own:
                where = f"{name}, {_excerpt(text, token)!r}, ids {shown(ids)}"
                self._found.setdefault(f"{token!r} (id {number})", []).append(where)

    def warn(self) -> None:
        """Say what was found, in a line for a BOS that stands there twice and a line for all others."""
        if self._twice:
            logger.warning(
                "%d of %d texts begin with the text of a token that the tokenizer adds as well, so that it is read "
                "twice: %s; take it off the texts",
                len(self._twice),
                self.looked,
                self._twice[0],
            )
        if self._found:
            parts = [f"{token} in {len(places)} ({places[0]})" for token, places in self._found.items()]
            logger.warning(
                "special tokens stand in texts and are read as the tokens themselves: %s of %d texts",
                "; ".join(parts),
                self.looked,
            )

    def among(self, ids: Sequence[int]) -> list[str]:
        """The special tokens among some ids, each once, with its id."""
        there = set(ids)
        return [f"{token!r} (id {number})" for token, number in self._tokens.items() if number in there]

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return spelled_tokens(self.tokenizer)

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        texts = sorted(filter(None, self._tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None


def spelled_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids by the texts that a tokenizer reads as special tokens."""
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = tokenizer.all_special_tokens
    return added | dict(zip(named, tokenizer.convert_tokens_to_ids(named), strict=True))


def shown(ids: Sequence[int]) -> str:
    """The first ids of a text."""
    return f"[{', '.join(map(str, ids[:_IDS]))}{', ...' if len(ids) > _IDS else ''}]"


def _excerpt(text: str, token: str) -> str:
    """A special token with what stands beside it."""
    place = text.index(token)
    return text[max(0, place - 12) : place + len(token) + 12]
