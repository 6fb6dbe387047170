"""Knowledge questions with the word or words that answer each."""

from __future__ import annotations

from pathlib import Path

from mechinterp.data.texts import check_whole, read_json
from mechinterp.errors import InputError


def read_knowledge(path: str | Path) -> list[tuple[str, str]]:
    """Read a JSON list of [question, answer] pairs, such as a run's `data/knowledge.json`.

    Raises:
        InputError: if it cannot be read, is empty, or an entry is no pair of texts; names the entry.
    """
    wanted = "a JSON list of [question, answer]"
    pairs = read_json(path, wanted)
    if not isinstance(pairs, list) or not pairs:
        raise InputError(f"{path}: give {wanted}, at least one")
    return knowledge_pairs(pairs, str(path))


def knowledge_pairs(pairs: object, where: str = "`knowledge`") -> list[tuple[str, str]]:
    """Questions with the word or words that answer each, checked.

    Raises:
        InputError: if it is no list, or an entry is no pair of texts; names the entry.
    """
    if not isinstance(pairs, list | tuple):
        raise InputError(f"{where} is {pairs!r:.60}; give a list of (question, answer), or the file of them")
    for number, pair in enumerate(pairs, 1):
        check_whole(pair, f"{where}: entry {number}")
        texts = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not texts or not all(part.strip() for part in pair):
            raise InputError(f"{where}: entry {number} is not [question, answer], two texts")
    return [(question, answer) for question, answer in pairs]
