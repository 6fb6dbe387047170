"""When two texts are the same: where they differ in nothing but case, blanks, invisible characters and Unicode's
compatible forms."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """What two spellings of one text have in common; empty for a text in which nothing can be seen."""
    if text.isascii():  # which has one form of each letter and nothing invisible
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(letter for letter in folded if unicodedata.category(letter) != "Cf").split())
