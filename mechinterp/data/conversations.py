"""Prompts that are conversations: messages of a system, a user and an assistant, and an answer is to follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from mechinterp.errors import InputError

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

ROLES = ("system", "user", "assistant")


class Conversation(str):
    """A prompt of several messages, as a text that remembers them: what tables, keys and judges see is the text.

    That of a single message of a user's is its content; otherwise every message stands on lines of its own, after its
    role. One that ends with an assistant's message begins the answer, which goes on from there.
    """

    messages: tuple[Message, ...]

    def __new__(cls, messages: Sequence[Message]) -> Self:
        """The text of some messages, checked before (`check_messages`)."""
        kept = tuple({"role": message["role"], "content": message["content"]} for message in messages)
        alone = len(kept) == 1 and kept[0]["role"] == "user"
        text = kept[0]["content"] if alone else "\n".join(f"{one['role']}: {one['content']}" for one in kept)
        found = super().__new__(cls, text)
        found.messages = kept
        return found

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.messages,)


Prompt = str | Sequence[Message]
"""What is asked: a text, which is one message of a user's, or the messages of a conversation."""


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """The messages of a prompt, to be changed at will."""
    if isinstance(prompt, Conversation):
        prompt = prompt.messages
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def asked(prompt: Prompt) -> str:
    """The text of the user's last message: the question, where earlier turns are left out."""
    if isinstance(prompt, str) and not isinstance(prompt, Conversation):
        return prompt
    messages = messages_of(prompt)
    return messages[_last_of_user(messages)]["content"]


def asking(prompt: Prompt, text: str) -> str:
    """The prompt with another text as the user's last message."""
    if isinstance(prompt, str) and not isinstance(prompt, Conversation):
        return text
    messages = messages_of(prompt)
    messages[_last_of_user(messages)]["content"] = text
    return Conversation(messages)


def begun(prompt: Prompt) -> str | None:
    """What the assistant's answer begins with, if the prompt says it."""
    last = messages_of(prompt)[-1]
    return last["content"] if last["role"] == "assistant" else None


def prompt_of(given: Any, where: str) -> str:
    """A text, or a conversation of some messages.

    Args:
        given: a text or a list of messages.
        where: what it is called in errors.

    Raises:
        InputError: unless it can be answered.
    """
    if isinstance(given, str):
        return given
    check_messages(given, where)
    return Conversation(given)


def parted(messages: Any, where: str) -> tuple[Conversation, str | None]:
    """What is asked in the `messages` of a file, and the answer where the last one is the assistant's.

    Raises:
        InputError: as `check_messages`.
    """
    check_messages(messages, where)
    if messages[-1]["role"] == "assistant":
        return Conversation(messages[:-1]), messages[-1]["content"]
    return Conversation(messages), None


def check_messages(messages: Any, where: str) -> None:
    """Raise `InputError`, with where they stand, unless something is the messages of a conversation."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError(f"{where}: a conversation is a list of messages, is {messages!a:.60}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise InputError(f"{where}: message {number} needs a `role` of {', '.join(ROLES)}, is {message!a:.60}")
        if not isinstance(message.get("content"), str):
            raise InputError(f"{where}: the `content` of message {number} must be text, is {message!a:.60}")
    roles = [message["role"] for message in messages]
    if "user" not in roles or roles[-1] == "system":
        raise InputError(f"{where}: a conversation needs a user's message, and a system's stands before it")
    if not messages[_last_of_user(messages)]["content"].strip():
        raise InputError(f"{where}: the user's last message is empty")


def _last_of_user(messages: Sequence[Message]) -> int:
    return max(place for place, message in enumerate(messages) if message["role"] == "user")
