"""The format of a conversation: the chat template that an instruct model was trained in, and what is put into it.

A format is fed by every pass alike, and no day changes it: what a template would ask of the clock (Llama-3.2 prints
today's date) or of its caller (Qwen3's thinking) is written into the template itself, so that transformers and TRL
render the very same without further arguments. An empty system message is not an absent one: several templates then
put in their own.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812 - `date` is the field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mechinterp.data.storage.provenance import digest
from mechinterp.data.texts import check_whole, read_text
from mechinterp.errors import InputError

DATE = "2024-07-26"
"""The day that templates are told where none is given: Llama's own, where it has no clock."""

_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


@dataclass(frozen=True)
class ChatFormat:
    """How prompts and responses are put before a model.

    Attributes:
        template: source of the chat template (Jinja).
        system: the system message of conversations that have none of their own; None for none, "" for an empty one.
        thinking: whether reasoning models may think first; None for the template's own default.
        date: the day that the template is told, YYYY-MM-DD.
        origin: where the template is from, in words: `tokenizer`, or a file.
    """

    template: str
    system: str | None = None
    thinking: bool | None = None
    date: str = DATE
    origin: str = "tokenizer"

    def __post_init__(self) -> None:
        try:
            Date.fromisoformat(self.date)
        except ValueError:
            raise InputError(f"the date must be YYYY-MM-DD, got {self.date!r}") from None
        check_whole(self.system, "the system message")

    @cached_property
    def source(self) -> str:
        """The template with date and thinking written into it: all that renders a conversation."""
        day, pinned = Date.fromisoformat(self.date), ""
        if self.thinking is not None:
            value = str(self.thinking).lower()
            pinned += f"{{% set enable_thinking = {value} %}}{{% set thinking = {value} %}}"
        if "date_string" in self.template:
            pinned += f'{{% set date_string = "{day:%d %b %Y}" %}}'
        if "strftime_now" in self.template:
            days = {wanted: day.strftime(wanted) for _, wanted in _TODAY.findall(self.template)}
            pinned += f"{{% set pinned_days = {json.dumps(days)} %}}{{% macro strftime_now(format) %}}"
            pinned += (
                "{{ pinned_days[format] if format in pinned_days else raise_exception('a date in no fixed form') }}"
            )
            pinned += "{% endmacro %}"
        return f"{pinned}\n{self.template}" if pinned else self.template  # the line end goes with the last block

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides what is fed; no other than yesterday's."""
        return digest([self.source, self.system])

    @property
    def described(self) -> dict[str, Any]:
        """For manifests and outputs: the hash of the template, and what is put into it."""
        return {
            "template": digest([self.template]),
            "from": self.origin,
            "system": self.system,
            "thinking": self.thinking,
            "date": self.date,
        }

    def __str__(self) -> str:
        parts = [f"the template of {self.origin} ({digest([self.template])[:8]})"]
        parts.append("no system message given" if self.system is None else f"system message {self.system[:40]!r}")
        parts += [] if self.thinking is None else ["thinking" if self.thinking else "no thinking"]
        return ", ".join(parts)

    def onto(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """A copy of a tokenizer whose own template renders this format: for TRL, which gives templates no arguments."""
        own = copy.deepcopy(tokenizer)
        own.chat_template = self.source
        return own


@dataclass(frozen=True)
class ChatChoice:
    """What a user asks for; which format that is, a tokenizer tells.

    Attributes:
        chat: `auto`, the tokenizer's own template, an error where it has none; `none`, plain text; a file with a
            template; None: as `auto` where there is a template, else plain.
        system, thinking, date: see `ChatFormat`.
    """

    chat: str | None = None
    system: str | None = None
    thinking: bool | None = None
    date: str | None = None

    def of(self, tokenizer: PreTrainedTokenizerBase, source: str) -> ChatFormat | None:
        """The format for a tokenizer, None for plain text.

        Args:
            tokenizer: the checkpoint's.
            source: what the checkpoint is called in errors.

        Raises:
            InputError: if there is no template where one is asked for, or something to put into none.
        """
        found = self._template(tokenizer, source)
        if found is None:
            if unused := [name for name in ("system", "thinking", "date") if getattr(self, name) is not None]:
                raise InputError(
                    f"{source}: it is read as plain text, which has no {', '.join(unused)}; give `chat=FILE` with a "
                    "template, or leave that out"
                )
            return None
        template, origin = found
        return ChatFormat(template, self.system, self.thinking, self.date or DATE, origin)

    def _template(self, tokenizer: PreTrainedTokenizerBase, source: str) -> tuple[str, str] | None:
        if self.chat == "none":
            return None
        if self.chat not in (None, "auto"):
            return read_text(self.chat, "a chat template (Jinja), or auto or none"), self.chat
        own = template_of(tokenizer)
        if own is None and self.chat == "auto":
            raise InputError(
                f"{source}: its tokenizer has no chat template; read it as plain text (`chat=none`), or give a "
                "template's file (`chat=FILE`)"
            )
        return None if own is None else (own, "tokenizer")


PLAIN = ChatChoice("none")
"""Plain text, whatever the tokenizer has."""


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A tokenizer's own template, the default one where it has several; None where it has none."""
    own: Any = getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default")
    return own or None


def file_of(path: str, folder: Path) -> str:
    """A choice of chat as it stands in a config: a file is taken from the config's folder."""
    return path if path in ("auto", "none") else str((folder / path).resolve())
