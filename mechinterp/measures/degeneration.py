"""What a text shows without a judge of having nothing to say: few words, a loop, the prompt again, another script.

Thresholds are ours. They look at words and letters alone: that another language stands in the same letters is not seen.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter

from mechinterp.data.normalised import normalised
from mechinterp.measures.fluency import words_of

FEW_WORDS = 3
"""A text with fewer is short."""

REPEATED = 0.5
"""From this share of word 4-grams that stand earlier in a text on it loops."""

COMPRESSED = 0.3
"""A text of 40 bytes and more that zlib makes smaller than this share loops, too."""

ECHOED = 0.5
"""From this share of its word 4-grams that stand in the prompt on a text echoes it."""

FOREIGN = 0.5
"""From this share of letters of scripts that the prompt does not have on a text is in another script."""


def is_short(text: str) -> bool:
    """Whether a text has words, but fewer than three."""
    return bool(normalised(text)) and len(words_of(normalised(text))) < FEW_WORDS


def loops(text: str) -> bool:
    """Whether a text repeats itself: most of its word 4-grams, or what a compressor finds."""
    grams = _grams(text)
    content = text.encode()
    if len(grams) > 1 and 1 - len(set(grams)) / len(grams) >= REPEATED:
        return True
    return len(content) >= 40 and len(zlib.compress(content, 9)) < COMPRESSED * len(content)


def echoes(text: str, prompt: str) -> bool:
    """Whether a text says its prompt again, in whole or in most of its word 4-grams."""
    words, asked = words_of(normalised(text)), f" {' '.join(words_of(normalised(prompt)))} "
    if len(words) >= FEW_WORDS and f" {' '.join(words)} " in asked:
        return True
    grams, known = _grams(text), set(_grams(prompt))
    return bool(grams) and sum(gram in known for gram in grams) / len(grams) >= ECHOED


def in_another_script(text: str, prompt: str) -> bool:
    """Whether most letters of a text are of scripts that its prompt has no letter of."""
    found, known = _scripts(text), _scripts(prompt)
    letters = sum(found.values())
    foreign = sum(n for script, n in found.items() if script not in known)
    return bool(known) and letters >= FEW_WORDS and foreign / letters >= FOREIGN


def beginning(text: str, words: int) -> str | None:
    """The first words of a text; None if it has no more."""
    parts = text.split()
    return " ".join(parts[:words]) if len(parts) > words else None


def _grams(text: str) -> list[tuple[str, ...]]:
    words = words_of(normalised(text))
    return list(zip(*(words[i:] for i in range(4)), strict=False))


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script: LATIN, CYRILLIC, CJK, ..."""
    if text.isascii():
        return Counter({"LATIN": n} if (n := sum(map(str.isalpha, text))) else {})
    return Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
