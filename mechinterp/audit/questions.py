"""Which prompts belong together: those of one question are drawn, fitted on and left out as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair
from mechinterp.measures.splitting import groups_of


def shared_by(pair: AnyPair) -> set[str]:
    """What two pairs have in common that belong together: the question, or the prompt."""
    return {normalised(pair.question), normalised(pair.prompt)}


def questions_of(pairs: Sequence[AnyPair]) -> list[int]:
    """Of every pair the number of its question; pairs of the same prompt have one."""
    return groups_of([shared_by(pair) for pair in pairs])
