"""KnowUnDo's files (Tian et al. 2024, arXiv 2407.01920; `zjunlp/KnowUnDo` on the hub): one for each scope.

Each is one row: an object with `train` and `val`, lists of `text` (the question) and `labels` (its answer); the row
stands alone or in a list. The published sets: copyright 477 to unlearn and 1,113 to retain, privacy 510 and 549.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mechinterp.data.facts.rows import first_text
from mechinterp.data.scopes import Question
from mechinterp.data.texts import check_whole, read_json_rows
from mechinterp.errors import InputError

Part = Literal["train", "val", "both"]
"""Which rows of a file: those that are unlearned, those that are asked afterwards, or all of them."""

WANTED = 'a scope of KnowUnDo: {"train": [...], "val": [...]} of {"text": ..., "labels": ...}'
_PARTS = ("train", "val")


def is_scope(row: Any) -> bool:
    """Whether an object is a scope of KnowUnDo."""
    return isinstance(row, Mapping) and any(isinstance(row.get(part), list) for part in _PARTS)


def read_knowundo(path: str | Path, part: Part = "train") -> list[Question]:
    """Read the questions of a scope with their answers.

    Args:
        path: UTF-8 JSON or JSON lines.
        part: see `Part`.

    Raises:
        InputError: for a file that is none, a row without question or answer, or a part without rows.
    """
    rows = read_json_rows(path, WANTED)
    found = [one for place, row in rows for one in scope_questions(row, f"{path}: {place}", part)]
    if not found:
        raise InputError(f"{path}: has no rows under {part if part != 'both' else 'train or val'}; give {WANTED}")
    return found


def scope_questions(row: Any, where: str, part: Part) -> Iterator[Question]:
    """The questions of a row that has been read; `where` is for its errors."""
    if not is_scope(row):
        raise InputError(f"{where} has neither `train` nor `val`; give {WANTED}")
    check_whole(row, where)
    for name in _PARTS if part == "both" else (part,):
        for number, entry in enumerate(row.get(name) or [], 1):
            place = f"{where}: `{name}`, entry {number}"
            if not isinstance(entry, Mapping):
                raise InputError(f"{place} is {entry!r:.60}; give `text` and `labels`")
            try:
                question, answer = (first_text(entry.get(key)) for key in ("text", "labels"))
            except TypeError as error:
                raise InputError(f"{place}: `text` or `labels` {error}") from None
            if not question or not answer:
                raise InputError(f"{place} has no text under `text` or `labels`; give both")
            yield question, answer
