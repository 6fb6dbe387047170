"""How many of what, in words."""

from __future__ import annotations


def many(count: int, one: str, more: str = "") -> str:
    """`1 prompt`, `3 prompts`, `1,600 comments`; `1 weight is`, `2 weights are`.

    Args:
        count: how many.
        one: what follows the number 1.
        more: what follows any other; by default `one` and an s.
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"
