"""Prompts that are conversations: messages of a system, a user and an assistant, the last of which asks or begins to
answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mechinterp.errors import InputError

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""
Prompt = str | Sequence[Message]
"""What is asked: a text, which is one message of a user's, or the messages of a conversation. One that ends with an
assistant's message begins the answer, which goes on from there."""

ROLES = ("system", "user", "assistant")


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """The messages of a prompt, to be changed at will."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def asked(prompt: Prompt) -> str:
    """The text of the user's last message: the question, where earlier turns are left out."""
    return prompt if isinstance(prompt, str) else prompt[_last_of_user(prompt)]["content"]


def asking(prompt: Prompt, text: str) -> Prompt:
    """The prompt with another text as the user's last message."""
    if isinstance(prompt, str):
        return text
    messages, place = messages_of(prompt), _last_of_user(prompt)
    messages[place]["content"] = text
    return messages


def begun(prompt: Prompt) -> str | None:
    """What the assistant's answer begins with, if the prompt says it."""
    if isinstance(prompt, str) or prompt[-1]["role"] != "assistant":
        return None
    return prompt[-1]["content"]


def shown_as_text(prompt: Prompt) -> str:
    """The prompt as one text, for tables: a text as it is, of a conversation every message after its role."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def check_prompt(prompt: Any, where: str) -> None:
    """Raise `InputError`, with where it stands, unless something is a prompt that can be answered."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InputError(f"{where} is empty")
        return
    if not isinstance(prompt, Sequence) or not prompt:
        raise InputError(f"{where}: a conversation is a list of messages, is {prompt!a:.60}")
    for number, message in enumerate(prompt, 1):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise InputError(f"{where}: message {number} needs a `role` of {', '.join(ROLES)}, is {message!a:.60}")
        if not isinstance(message.get("content"), str):
            raise InputError(f"{where}: the `content` of message {number} must be text, is {message!a:.60}")
    roles = [message["role"] for message in prompt]
    if "user" not in roles or roles[-1] == "system":
        raise InputError(f"{where}: a conversation needs a user's message, and none of the system's after the last")
    if not asked(prompt).strip():
        raise InputError(f"{where} is empty")


def parted(messages: Any, where: str) -> tuple[list[dict[str, str]], str | None]:
    """What is asked in the `messages` of a file, and the answer where the last one is the assistant's.

    Raises:
        InputError: as `check_prompt`.
    """
    check_prompt(messages, where)
    found = messages_of(messages)
    if found[-1]["role"] == "assistant" and len(found) > 1:
        return found[:-1], found[-1]["content"]
    return found, None


def _last_of_user(prompt: Sequence[Message]) -> int:
    return max(place for place, message in enumerate(prompt) if message["role"] == "user")
