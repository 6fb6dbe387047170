"""Knowledge questions with the word or words that answer each."""

from __future__ import annotations

import json
from pathlib import Path

from mechinterp.errors import InputError


def read_knowledge(path: str | Path) -> list[tuple[str, str]]:
    """Read a JSON list of [question, answer] pairs, such as a run's `data/knowledge.json`.

    Raises:
        InputError: if it cannot be read, is empty, or an entry is no pair of texts; names the entry.
    """
    path = Path(path)
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a JSON list of [question, answer]") from error
    if not isinstance(pairs, list) or not pairs:
        raise InputError(f"{path}: give a JSON list of [question, answer], at least one")
    for number, pair in enumerate(pairs, 1):
        texts = isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not texts or not all(part.strip() for part in pair):
            raise InputError(f"{path}: entry {number} is not [question, answer], two texts")
    return [(question, answer) for question, answer in pairs]
