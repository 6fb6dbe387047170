"""Benign prompts, on which a detoxified model should behave as before: readers of texts and of JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.data.conversations import parted
from mechinterp.data.texts import check_whole, read_json_lines, read_text_lines
from mechinterp.errors import InputError


@dataclass(frozen=True)
class BenignPrompt:
    """A harmless request, a `Conversation` where it has several messages, with a good answer where there is one."""

    prompt: str
    answer: str | None = None


def read_benign(path: str | Path, *, what: str = "benign prompts") -> list[BenignPrompt]:
    """Read benign prompts, or any others.

    Args:
        path: UTF-8. A name in `.jsonl` or `.json` holds JSON lines or a JSON list, of texts or of objects with `prompt`
            or `instruction`, and `answer` if there is one, or with `messages`, whose last one is the answer if it is
            the assistant's; Self-Instruct's `instances` (of which the first counts) give
            the input, put on a line of its own below the instruction, and the output as answer. Any other name holds
            one prompt per line. Blank lines are skipped.
        what: what they are called in errors.

    Raises:
        InputError: if the file cannot be read, is empty, or a line has no prompt; names the line.
    """
    path = Path(path)
    if path.suffix not in (".json", ".jsonl"):
        texts = read_text_lines(path, f"{what}, one a line; JSON in a file named .json or .jsonl")
        return [BenignPrompt(line) for _, line in texts]
    wanted = f"{what}, as a JSON list or JSON lines"
    found = [_parse(value, f"{path}: {place}") for place, value in read_json_lines(path, wanted)]
    if not found:
        raise InputError(f"{path}: is empty; give at least one of {what}")
    return found


def benign_prompts(given: object) -> list[BenignPrompt]:
    """Benign prompts, checked: texts, lists of messages, `BenignPrompt`s, or objects as `read_benign` takes them.

    Raises:
        InputError: if it is no list, or an entry is no prompt; names the entry.
    """
    if not isinstance(given, list | tuple):
        raise InputError(f"`benign` is {given!r:.60}; give a list of prompts, or the file of them")
    found = []
    for number, one in enumerate(given, 1):
        record = {"messages": one} if isinstance(one, list) else one
        found.append(one if isinstance(one, BenignPrompt) else _parse(record, f"`benign`: entry {number}"))
    return found


def _parse(record: Any, where: str) -> BenignPrompt:
    check_whole(record, where)
    if isinstance(record, str):
        record = {"prompt": record}
    if not isinstance(record, dict):
        raise InputError(f"{where} is no JSON object, and no text")
    if "messages" in record:
        return BenignPrompt(*parted(record["messages"], where))
    prompt, answer = record.get("prompt", record.get("instruction")), record.get("answer")
    several = record.get("instances")
    first = several[0] if isinstance(several, list) and several else None
    if isinstance(first, dict):
        given = first.get("input") or ""
        if not isinstance(given, str):
            raise InputError(f"{where}: `input` must be text, is {given!a:.60}")
        prompt = f"{prompt}\n{given}" if isinstance(prompt, str) and given else prompt
        answer = first.get("output") if answer is None else answer
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where} has no text under 'prompt' or 'instruction'")
    if answer is not None and not isinstance(answer, str):
        raise InputError(f"{where}: `answer` must be text, is {answer!a:.60}")
    return BenignPrompt(prompt, _or_none(answer))


def _or_none(text: Any) -> str | None:
    return text if text and text.strip() else None
