"""An answer with the prompts after which its probability is read."""

from __future__ import annotations

from dataclasses import dataclass

from mechinterp.data.conversations import Prompt
from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError

Change = Fact | AnyPair
"""What an edit is made of: a fact with its new answer, or a prompt that is to be answered safely."""


@dataclass(frozen=True)
class Query:
    """An answer, and the prompts that it may follow, each of the same weight.

    Attributes:
        prompts: texts, or conversations in a chat format.
        answer: without the blank before it.

    Raises:
        InputError: without a prompt, or for a blank answer.
    """

    prompts: tuple[Prompt, ...]
    answer: str

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InputError(f"the answer {self.answer!r:.60} has no prompt; give at least one")
        if not self.answer.strip():
            raise InputError(f"{self.prompts[0]!r:.80} has a blank answer; give what is read after it")

    def __repr__(self) -> str:
        return one_line(self, f"{self.answer!r:.60} after {self.prompts[0]!r:.80}", _more(len(self.prompts) - 1))


def _more(count: int) -> str:
    return f"and {count} more prompts" if count else ""


def asked_of(change: Change, answer: str | None = None) -> Query:
    """What an edit is asked: a fact's prompt and its rephrasings, or a pair's prompt.

    Args:
        change: what the edit is made of.
        answer: which is read; by default what the edit should bring about.
    """
    if isinstance(change, Fact):
        return Query((change.text, *change.rephrasings), answer or change.answer)
    return Query((change.prompt,), answer or change.safe)


def pair_to(pair: AnyPair, answer: str, other: str, *, prompt: str | None = None) -> AnyPair:
    """The pair whose edit brings about an answer, whatever that is, instead of another one.

    Args:
        pair: what else is in it stays.
        answer, other: as its safe and its unsafe one.
        prompt: another one; its own if not given.
    """
    asked = pair.prompt if prompt is None else prompt
    if isinstance(pair, SafeEditInstance):
        changed = {"adversarial_prompt": asked, "safe_generation": answer, "unsafe_generation": other}
        return pair.model_copy(update=changed)
    return pair.model_copy(update={"prompt": asked, "safe": answer, "unsafe": other})
