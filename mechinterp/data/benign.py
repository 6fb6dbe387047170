"""Benign prompts, on which a detoxified model should behave as before: readers of texts and of JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.errors import InputError


@dataclass(frozen=True)
class BenignPrompt:
    """A harmless request, with a good answer where there is one."""

    prompt: str
    answer: str | None = None


def read_benign(path: str | Path) -> list[BenignPrompt]:
    """Read benign prompts.

    Args:
        path: UTF-8. A name in `.jsonl` holds an object per line with `prompt` or `instruction`, and `answer` if there
            is one; Self-Instruct's `instances` (of which the first counts) give the input, put on a line of its own
            below the instruction, and the output as answer. Any other name holds one prompt per line. Blank lines are
            skipped.

    Raises:
        InputError: if the file cannot be read, is empty, or a line has no prompt; names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give benign prompts, one a line") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path}: is empty; give at least one benign prompt")
    if path.suffix != ".jsonl":
        return [BenignPrompt(line) for _, line in numbered]
    return [_parse(line, f"{path}: line {number}") for number, line in numbered]


def _parse(line: str, where: str) -> BenignPrompt:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}); give one object a line") from error
    if not isinstance(record, dict):
        raise InputError(f"{where} is no JSON object")
    prompt, answer = record.get("prompt", record.get("instruction")), record.get("answer")
    first = next(iter(record.get("instances") or []), None)
    if isinstance(first, dict):
        given = first.get("input") or ""
        prompt = f"{prompt}\n{given}" if isinstance(prompt, str) and given else prompt
        answer = first.get("output") if answer is None else answer
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where} has no text under `prompt` or `instruction`")
    if answer is not None and not isinstance(answer, str):
        raise InputError(f"{where}: `answer` must be text, is {answer!r:.60}")
    return BenignPrompt(prompt, _or_none(answer))


def _or_none(text: Any) -> str | None:
    return text if text and text.strip() else None
