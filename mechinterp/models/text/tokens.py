"""Texts as tokens: what is fed, which positions count, and how sequences are padded into batches.

A response is joined to its prompt by one space; in a chat format prompts are conversations, and the template says what
stands between (`rendering`). Sequences longer than the context are an error unless truncation is asked for, which then
removes tokens on the left of the user's text: the harmful question stands at its right. What the tokenizer itself puts
in front (a BOS) stays, and so does all that a chat template puts around that text. Of what may not have been meant, it
is said: special tokens that a text spells out, cut headers of turns, prompts whose end merges with the response.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mechinterp.data.conversations import Prompt, asked, asking, messages_of
from mechinterp.data.counting import many
from mechinterp.data.texts import check_whole
from mechinterp.errors import InputError, near
from mechinterp.models.text.chat import ChatFormat
from mechinterp.models.text.cutting import Cut, keep_right
from mechinterp.models.text.joining import Joining
from mechinterp.models.text.rendering import Rendering
from mechinterp.models.text.special_tokens import Around, SpelledOut

Position = str
"""`last`, `content`, `post:-K`, `mean`, `response`, `all` or `generated:N`, see `Encoded.positions`."""

_CHUNK = 512  # texts tokenised at a time

POSITIONS = ("last", "mean", "response", "all", "generated:N", "content", "post:-K")


def generated_tokens(position: Position) -> int | None:
    """The N of `generated:N`, None for every other position.

    Raises:
        InputError: if there is no such position.
    """
    kind, separator, number = position.partition(":")
    if kind == "generated" and number.isdecimal() and int(number) > 0:
        return int(number)
    behind = kind == "post" and number[:1] == "-" and number[1:].isdecimal() and int(number) < 0
    if not behind and (separator or position not in POSITIONS):
        meant = near(position, POSITIONS)
        raise InputError(f"position must be one of {POSITIONS}, with N and K at least 1, got {position!r}{meant}")
    return None


def of_prompt(position: Position) -> bool:
    """Whether a position ends with the prompt, so that what follows does not matter to it."""
    return position in ("last", "mean", "content") or position.startswith("post:")


@dataclass(frozen=True)
class Encoded:
    """One sequence of token ids, four bytes a token.

    Attributes:
        ids: all of them.
        prompt_length: how many are the prompt; in a chat format up to the header of the answer, which is part of it.
        content: those that are the text of the user's last message; None where all of the prompt is.
    """

    ids: array[int]
    prompt_length: int
    content: range | None = None

    @classmethod
    def of(cls, ids: Sequence[int], prompt_length: int, content: range | None = None) -> Encoded:
        """From any sequence of ids."""
        return cls(array("i", ids), prompt_length, content)

    def positions(self, position: Position) -> range:
        """The token indices that a position means.

        `last`: the last prompt token; `content`: the last token of the user's text, the same one without a chat format;
        `post:-K`: the K-th last prompt token, behind that text; `mean`: all prompt tokens, in a chat format those of
        the user's text; `response`: the tokens after the prompt; `generated:N`: at most N of them; `all`: all.
        """
        if (wanted := generated_tokens(position)) is not None:
            return range(self.prompt_length, min(self.prompt_length + wanted, len(self.ids)))
        content = range(self.prompt_length) if self.content is None else self.content
        if position == "last":
            return range(self.prompt_length - 1, self.prompt_length)
        if position == "content":
            return content[-1:]
        if position.startswith("post:"):
            place = self.prompt_length + int(position.removeprefix("post:"))
            return range(place, place + (content.stop <= place))
        if position == "mean":
            return content
        if position == "response":
            return range(self.prompt_length, len(self.ids))
        return range(len(self.ids))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str] | None = None,
    *,
    max_length: int,
    chat: ChatFormat | None = None,
    truncate: bool = False,
    reserve: int = 0,
    prefix: str | None = None,
    suffix: str | None = None,
    called: Sequence[str] | None = None,
    quiet: bool = False,
) -> list[Encoded]:
    """Tokenise prompts, or prompts with the responses teacher-forced after them.

    Args:
        prompts: texts; special tokens are added as the tokenizer does (a BOS where it has one), or as the template
            writes them. In a chat format conversations too.
        responses: one per prompt, joined by one space, or after the header that the template writes.
        max_length: context length in tokens.
        chat: the chat format; None for plain text.
        truncate: cut long prompts from the left instead of raising.
        reserve: tokens to leave free at the end, for generation.
        prefix: text before every prompt, see `wrapped`; like the suffix it is never cut, and counts as prompt.
        suffix: text after every prompt.
        called: what each prompt is called in errors; by default "prompt" and its number.
        quiet: say nothing of special tokens in the texts, as the caller has: see `special_tokens` and `joining`.

    Raises:
        InputError: for an empty prompt or response, or one that is too long and `truncate` is off, or whose prefix and
            suffix leave no room for it; it names the row. For a conversation of several messages without a chat format.
    """
    if not prompts:
        return []
    if responses is not None and len(responses) != len(prompts):
        raise InputError(f"{many(len(prompts), 'prompt')} but {many(len(responses), 'response')}")
    names = [f"prompt {row}" for row in range(len(prompts))] if called is None else called
    around = Around.of(tokenizer) if chat is None else Around()  # a template writes what stands around a text
    writing: Joining | Rendering
    if chat is None:
        prompts = [plain_text(prompt, name) for prompt, name in zip(prompts, names, strict=True)]
        writing = Joining(tokenizer, around)
    else:
        writing = Rendering(tokenizer, chat)
    spelled, cut = SpelledOut(tokenizer, around), Cut()
    encoded = []
    for start in range(0, len(prompts), _CHUNK):  # a tokenizer's own output is many times larger than the ids
        rows = slice(start, start + _CHUNK)
        for row, prompt in enumerate(prompts[rows], start):
            if not asked(prompt).strip():
                raise InputError(f"{names[row]} is empty")
            if responses is not None and not responses[row].strip():
                raise InputError(f"response {row} is empty")
        texts = [wrapped(prompt, prefix, suffix) for prompt in prompts[rows]]
        for row, text in enumerate(texts, start):  # of a command line's or a notebook's own: files are checked as read
            check_whole(text, names[row])
            check_whole("" if responses is None else responses[row], f"response {row}")
        heads, tails = writing.tokens(texts, None if responses is None else responses[rows], names[rows])
        contents = writing.contents(texts, heads)
        for row, (text, head, tail, content) in enumerate(zip(texts, heads, tails, contents, strict=True), start):
            if not head:
                raise InputError(f"{names[row]} has no tokens: the tokenizer makes none of {text[:40]!a}")
            for message in messages_of(text):
                spelled.look(names[row], message["content"], head)
            if responses is not None:
                spelled.look(f"response {row}", responses[row], tail)
            room, lost = max_length - reserve - len(tail), 0
            if len(head) > room:
                left, right = writing.ends(text, head, prefix, suffix)
                if not truncate or room <= left + right:
                    around_it = "prefix and suffix" if chat is None else "the parts around it"
                    shown = left + right if prefix or suffix or chat is not None else 0
                    fixed = {around_it: shown, "its response": len(tail)}
                    answer = f"response {row}" if called is None else f"the response of {names[row]}"
                    given = f"{names[row]} has {len(head)} tokens, {max(room, 0)} fit into the context of {max_length}"
                    useless = room <= left + right  # to cut it
                    raise InputError(_too_long(given, answer, {**fixed, "new tokens": reserve}, max_length, useless))
                whole, head, lost = head, keep_right(head, room, left), len(head) - room
                cut.add(names[row], head, spelled.among(whole[left : left + lost]))
            span = None if chat is None else range(content.start, content.stop - lost)
            encoded.append(Encoded.of([*head, *tail], len(head), span))
    cut.warn(len(prompts), max_length)
    if not quiet:
        writing.warn()
        spelled.warn()
    return encoded


def plain_text(prompt: Prompt, name: str) -> str:
    """The text of a prompt that is fed without a chat format.

    Raises:
        InputError: for a conversation of several messages, which names it.
    """
    messages = messages_of(prompt)
    if len(messages) > 1 or messages[0]["role"] != "user":
        raise InputError(
            f"{name} is a conversation of {len(messages)} messages, which plain text cannot hold; give a chat format "
            "(`chat=FILE`, or a tokenizer with a template)"
        )
    return messages[0]["content"]


def _too_long(given: str, answer: str, fixed: Mapping[str, int], context: int, useless: bool) -> str:
    """Why a text does not fit into the context, and what helps: nothing that was done already, or that would not do.

    Args:
        given: how long the query is, and how much of it fits.
        answer: what its response is called.
        fixed: tokens of prefix and suffix, of the response, and those left free for generation: what is never cut.
        context: how many tokens fit.
        useless: whether nothing of the prompt would be left, were it cut.
    """
    longer = "or use a model with a longer context"
    if (new := fixed["new tokens"]) >= context:
        return (
            f"{many(new, 'new token leaves', 'new tokens leave')} no room in the context of {context}; ask for "
            f"fewer (`max_new_tokens`) {longer}"
        )
    if (response := fixed["its response"]) >= context:
        return (
            f"{answer} is too long: it has {response} tokens, and the context of {context} must hold it with its "
            f"prompt; shorten it or leave it out, {longer}"
        )
    taken = ", ".join(f"{name} take{'s' * (name == 'its response')} {n}" for name, n in fixed.items() if n)
    remedy = f"shorten {'that' if taken else 'it'}" if useless else "truncate from the left (`truncate=True`)"
    return f"{given}{f' ({taken})' if taken else ''}; {remedy} {longer}"


def wrapped(prompt: Prompt, prefix: str | None = None, suffix: str | None = None) -> str:
    """A query: the user's (last) text between prefix and suffix, each joined to it by one space."""
    return asking(prompt, " ".join(part for part in (prefix, asked(prompt), suffix) if part))
