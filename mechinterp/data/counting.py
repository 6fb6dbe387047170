"""How many of what, in words, and which of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def many(count: int, one: str, more: str = "") -> str:
    """`1 prompt`, `3 prompts`, `1,600 comments`; `1 weight is`, `2 weights are`.

    Args:
        count: how many.
        one: what follows the number 1.
        more: what follows any other; by default `one` and an s.
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"


def parted(things: Sequence[Thing], flags: Iterable[bool]) -> tuple[list[Thing], list[Thing]]:
    """Those whose flag is set, and those whose flag is not; a flag for each, in their order."""
    marked = list(zip(things, flags, strict=True))
    return [thing for thing, flag in marked if flag], [thing for thing, flag in marked if not flag]
