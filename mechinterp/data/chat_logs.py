"""Two logs of the same conversations, one with unsafe and one with safe answers: a pair of each.

A line holds `{"messages": [...]}`. The two logs share the system's and the user's turns, line by line. A pair is made
of the first answers in which they differ: up to there both say the same, which is the prompt; what is said later
follows from different answers, and is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechinterp.data.conversations import Conversation, Message, check_messages
from mechinterp.data.counting import many
from mechinterp.data.pairs import Pair
from mechinterp.data.texts import check_whole, read_json_lines
from mechinterp.errors import InputError

_WANTED = 'a chat log: JSON lines of {"messages": [...]}'


def read_chat_logs(unsafe: Path, safe: Path) -> list[Pair]:
    """The pairs of two logs, numbered as their lines; of a line that is the same in both, the last answers.

    Raises:
        InputError: for a file that is no log, a line without an answer, or logs that ask other things.
    """
    logs = _read(unsafe), _read(safe)
    if len(logs[0]) != len(logs[1]):
        raise InputError(
            f"{safe}: has {many(len(logs[1]), 'conversation')}, {unsafe} {len(logs[0])}; the two must have the "
            "same, line by line"
        )
    pairs = []
    for number, ((place, bad), (there, good)) in enumerate(zip(*logs, strict=True), 1):
        if _asked(bad) != _asked(good):
            raise InputError(
                f"{safe}: {there} does not ask what {place} of {unsafe} asks; the two logs must share the user's "
                "turns, line by line"
            )
        answered = [row for row, message in enumerate(bad) if message["role"] == "assistant"]
        row = next((row for row in answered if bad[row]["content"] != good[row]["content"]), answered[-1])
        for name, at, log in ((unsafe, place, bad), (safe, there, good)):
            if not log[row]["content"].strip():
                raise InputError(f"{name}: {at}: message {row + 1}, an answer, is blank")
        prompt = Conversation(bad[:row])
        pairs.append(Pair(id=number, prompt=prompt, unsafe=bad[row]["content"], safe=good[row]["content"]))
    return pairs


def _asked(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Who speaks, and what all but the assistant say."""
    return [(one["role"], "" if one["role"] == "assistant" else one["content"]) for one in messages]


def _read(path: Path) -> list[tuple[str, Sequence[Message]]]:
    found: list[tuple[str, Sequence[Message]]] = []
    for place, row in read_json_lines(path, _WANTED):
        where = f"{path}: {place}"
        messages: Any = row.get("messages") if isinstance(row, dict) else None
        if messages is None:
            raise InputError(f"{where} has no `messages`; give {_WANTED}")
        check_whole(messages, where)
        check_messages(messages, where)
        first = next((number for number, one in enumerate(messages) if one["role"] == "assistant"), 0)
        if not any(one["role"] == "user" for one in messages[:first]):
            raise InputError(f"{where} has no assistant's answer to a user's message; give {_WANTED}")
        if messages[-1]["role"] != "assistant":
            messages = messages[: max(n for n, one in enumerate(messages) if one["role"] == "assistant") + 1]
        found.append((place, messages))
    if not found:
        raise InputError(f"{path}: is empty; give {_WANTED}")
    return found
