"""Pairs of prompts as a user writes them for a circuit: one that shows the behaviour, one that does not.

JSON lines, or one JSON list, of `{"clean": ..., "corrupted": ..., "right": ..., "wrong": ...}`: two prompts of the same
number of tokens, the answers that the first calls for and those that the second calls for. An answer counts by its
first token; `wrong` may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mechinterp.data.pair_files import WANTED as PAIRS
from mechinterp.data.safeedit import Text
from mechinterp.data.texts import json_rows, read_text
from mechinterp.data.validation import Fault
from mechinterp.errors import InputError

WANTED = "JSON lines of clean, corrupted, right and wrong"


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Answers = Annotated[tuple[Text, ...], BeforeValidator(_several)]


class PromptPair(BaseModel):
    """Two prompts of the same number of tokens.

    Attributes:
        clean: the prompt that shows the behaviour.
        corrupted: one that does not.
        right: answers that the clean prompt calls for; at least one.
        wrong: answers that the corrupted one calls for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: Text
    corrupted: Text
    right: Answers = Field(min_length=1)
    wrong: Answers = ()


def has_prompt_pairs(path: Path) -> bool:
    """Whether the first row of a file is a pair of prompts."""
    text = read_text(path, f"{PAIRS}; or {WANTED}")
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        _, row = next(json_rows(text, path, WANTED), ("", None))
    except InputError:
        return False
    return isinstance(row, dict) and {"clean", "corrupted"} <= row.keys()


def read_prompt_pairs(path: str | Path) -> list[PromptPair]:
    """Read pairs of prompts.

    Raises:
        InputError: for a file without any, or a malformed row; names the file, the row and the reason.
    """
    path = Path(path)
    found = [_pair(row, f"{path}: {place}") for place, row in _rows(path)]
    if not found:
        raise InputError(f"{path}: has no pairs of prompts; give {WANTED}")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    yield from json_rows(read_text(path, WANTED), path, WANTED)


def _pair(row: Any, where: str) -> PromptPair:
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a JSON object; give {WANTED}")
    try:
        return PromptPair.model_validate(row)
    except ValidationError as error:
        fault = Fault.of(error)
    raise InputError(f"{where}: `{fault.where}`: {fault.told}")
