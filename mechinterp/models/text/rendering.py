"""Prompts, and prompts with responses after them, as a chat template renders them: a prompt's ids are the same in both.

A prompt is rendered with the header of the answer after it (the generation prompt), so that its last token is the one
whose logits choose the first token of the answer. A response is what comes after the prompt's ids where the whole
conversation is rendered and broken off after it. Where the prompt's ids are no beginning of those, the response keeps
the ids that it has alone if both read alike as text; else the template cannot be used for scoring, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from mechinterp.data.conversations import Prompt, asked, asking, begun, messages_of
from mechinterp.errors import InputError
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.joining import common
from mechinterp.models.text.special_tokens import Around, shown, spelled_tokens

logger = logging.getLogger(__name__)

_Key = tuple[tuple[str, str], ...]

_MARK = "QQuestionQ"  # stands for the user's text where its place is looked for


@dataclass
class Rendering:
    """Tokenises conversations in a format, and counts what did not go as a template should.

    Rendering costs more than tokenising: of the prompts of the last `tokens` each is rendered once, whatever is asked
    of it afterwards.

    Attributes:
        tokenizer: of the model.
        chat: the format.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    _rendered: dict[_Key, str] = field(default_factory=dict)
    _places: dict[_Key, tuple[str | None, str]] = field(default_factory=dict)
    _bos: list[str] = field(default_factory=list)

    def tokens(
        self, prompts: Sequence[Prompt], responses: Sequence[str] | None, names: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of the prompts, the header of the answer included, and of the responses after them.

        Args:
            prompts: texts or conversations.
            responses: one per prompt; after what the prompt itself says of the answer they are joined by one space.
            names: what the prompts are called.

        Raises:
            InputError: if the template refuses a conversation, or writes a response otherwise than after the prompt.
        """
        self._rendered.clear()
        self._places.clear()
        heads = self.ids([self._once(prompt, name) for prompt, name in zip(prompts, names, strict=True)])
        for name, head in zip(names, heads, strict=True):
            self._look_for_bos(name, head)
        if responses is None:
            return heads, [[] for _ in heads]
        both = [answered(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        wholes = self.ids([self.text(prompt, name) for prompt, name in zip(both, names, strict=True)])
        tails = [
            whole[len(head) :] if whole[: len(head)] == head else self._own(head, whole, response, name)
            for head, whole, response, name in zip(heads, wholes, responses, names, strict=True)
        ]
        return heads, tails

    def text(self, prompt: Prompt, name: str = "the conversation", *, ended: bool = False) -> str:
        """A conversation as text: with the answer's header, or broken off after what the answer begins with.

        Args:
            ended: as a conversation that is over, with what the template writes after its last message.

        Raises:
            InputError: if the template refuses it.
        """
        messages = self.messages(prompt)
        going_on = begun(prompt) is not None
        how: dict[str, Any] = {
            "add_generation_prompt": not going_on and not ended,
            "continue_final_message": going_on and not ended,
        }
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages, chat_template=self.chat.source, tokenize=False, **how
            )
        except Exception as error:  # Jinja's own, whatever the template's code raises, and transformers' ValueError
            remedy = ""
            if "system" in str(error).lower() and messages[0]["role"] == "system":
                remedy = "; leave the system message out (`system`)"
            said = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"the chat template of {self.chat.origin} refuses {name} ({said:.200}){remedy}") from error
        return rendered

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """The messages that are rendered: the format's system message is put first, unless there is one."""
        messages = messages_of(prompt)
        if self.chat.system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.chat.system})
        return messages

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Rendered texts as tokens; nothing is added, since a template writes its own BOS."""
        return list(self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"])

    def contents(self, prompts: Sequence[Prompt], heads: Sequence[Sequence[int]]) -> list[range]:
        """Which of the prompts' tokens are the text of the user's last message.

        Args:
            prompts: texts or conversations.
            heads: their ids.

        Raises:
            InputError: for a template that does not write that text as it is.
        """
        parts = [self._parts(prompt) for prompt in prompts]
        befores = list(dict.fromkeys(before for before, _ in parts))  # of one question each they are all the same
        start_of = dict(zip(befores, self.ids(befores), strict=True))
        starts = [start_of[before] for before, _ in parts]
        stops = self.ids([before + own for before, own in parts])
        return [
            range(common(start, head), common(stop, head))
            for start, stop, head in zip(starts, stops, heads, strict=True)
        ]

    def ends(self, prompt: Prompt, head: Sequence[int], prefix: str | None, suffix: str | None) -> tuple[int, int]:
        """How many tokens at each end of a query are never cut: all but the user's text, and of that the two ends.

        Args:
            prompt: the query, prefix and suffix in it.
            head: its ids.
            prefix, suffix: what stands at the ends of the user's text.
        """
        before, own = self._parts(prompt)
        (content,) = self.contents([prompt], [head])
        left, stop = content.start, content.stop
        if prefix and prefix.strip():
            left = common(self.ids([before + own[: own.index(prefix.strip()) + len(prefix.strip())] + " "])[0], head)
        if suffix and suffix.strip():
            stop = common(self.ids([before + own[: own.rindex(suffix.strip())].rstrip()])[0], head)
        return max(left, content.start), len(head) - stop

    def start(self, prompt: Prompt) -> int:
        """At which character of the rendered conversation that of number 0 of the user's last message stands.

        Raises:
            InputError: for a template that does not write that text as it is.
        """
        before, own = self._parts(prompt)
        return len(before) - asked(prompt).index(own)  # what a template strips at its left is before it

    @cached_property
    def stop(self) -> int | None:
        """The first special token that the template writes after an assistant's message, which ends an answer."""
        conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        text = self.text(conversation, ended=True)
        after = self.ids([text[text.rindex(_MARK) + len(_MARK) :]])[0] if _MARK in text else []
        special = set(spelled_tokens(self.tokenizer).values())
        return next((token for token in after if token in special), None)

    def warn(self) -> None:
        """Say where a BOS stands twice, or not at all where the tokenizer itself would add one."""
        if self._bos:
            logger.warning(
                "the chat template of %s and the tokenizer do not agree on the BOS, which should stand there once: %s",
                self.chat.origin,
                self._bos[0],
            )

    def _own(self, head: list[int], whole: list[int], response: str, name: str) -> list[int]:
        """A response's own ids, if with the prompt's before them they read as what the template writes."""
        own = list(self.tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"])
        if self.tokenizer.decode([*head, *own]) != self.tokenizer.decode(whole):
            same = common(head, whole)
            raise InputError(
                f"the chat template of {self.chat.origin} writes a response to {name} otherwise than after its prompt "
                f"(ids ... {head[same : same + 4]} and ... {whole[same : same + 4]}); give another template ("
                "`chat=FILE`), of a reasoning model `thinking=False`"
            )
        return own

    def _parts(self, prompt: Prompt) -> tuple[str, str]:
        """The rendered text before that of the user's last message, and that one as the template writes it."""
        before, after = self._around(asking(prompt, _MARK))
        text = self._once(prompt)
        if before is None or not (text.startswith(before) and text.endswith(after)):
            raise InputError(
                f"the chat template of {self.chat.origin} does not write the user's message as it is; give another "
                "(`chat=FILE`)"
            )
        return before, text[len(before) : len(text) - len(after)]

    def _around(self, marked: Prompt) -> tuple[str | None, str]:
        """The rendered text on both sides of the mark that stands for the user's last message; None without one."""
        key = _key(marked)
        if key not in self._places:
            before, mark, after = self.text(marked).rpartition(_MARK)
            self._places[key] = before if mark else None, after
        return self._places[key]

    def _once(self, prompt: Prompt, name: str = "the conversation") -> str:
        """`text`, from before where it was rendered before."""
        key = _key(prompt)
        if key not in self._rendered:
            self._rendered[key] = self.text(prompt, name)
        return self._rendered[key]

    def _look_for_bos(self, name: str, head: Sequence[int]) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is None or not head:
            return
        twice = list(head[:2]) == [bos, bos]
        if twice or (bos in self._adds.before and head[0] != bos):
            self._bos.append(f"{'twice' if twice else 'missing'} in {name}, ids {shown(head)}")

    @cached_property
    def _adds(self) -> Around:
        return Around.of(self.tokenizer)


def _key(prompt: Prompt) -> _Key:
    """What tells prompts apart; the text of a conversation may be that of another."""
    return tuple((message["role"], message["content"]) for message in messages_of(prompt))


def answered(prompt: Prompt, response: str) -> list[dict[str, str]]:
    """The conversation with a response, after what the prompt itself says of the answer, if it does, and a space."""
    messages, start = messages_of(prompt), begun(prompt)
    if start is None:
        return [*messages, {"role": "assistant", "content": response}]
    joined = f"{start}{response}" if start[-1:].isspace() else f"{start} {response}"
    return [*messages[:-1], {"role": "assistant", "content": joined}]
