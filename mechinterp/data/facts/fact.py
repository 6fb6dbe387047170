"""Facts: a prompt about a subject with what should be answered, and what else a change of it should move, or leave.

What KnowEdit (Zhang et al. 2024, arXiv 2401.01286) measures an edit by: `rephrasings` and `portability` should answer
anew, `locality` as before. A fact of which nothing is to be changed has a `ground_truth` and no `target_new`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mechinterp.data.showing import one_line
from mechinterp.data.storage.files import write_json_lines
from mechinterp.errors import InputError

SLOT = "{}"
"""Stands in a prompt for the subject."""

Asked = tuple[str, str]
"""A prompt and its answer."""


@dataclass(frozen=True)
class Fact:
    """A fact.

    Attributes:
        subject: what it is about; "" where that is not known.
        prompt: with `{}` where the subject stands, or whole, with the subject somewhere in it.
        target_new: the answer that a change of the fact should bring about; "" for none.
        ground_truth: the answer before; "" where it is not known.
        rephrasings: the prompt in other words, whole.
        portability: kind -> prompts that follow from the new fact, with their new answers.
        locality: kind -> prompts that the new fact leaves alone, with their answers.
        relation: what is said of the subject ("country capital city"); "" where it has no name.
    """

    subject: str
    prompt: str
    target_new: str = ""
    ground_truth: str = ""
    rephrasings: tuple[str, ...] = ()
    portability: Mapping[str, tuple[Asked, ...]] = field(default_factory=dict)
    locality: Mapping[str, tuple[Asked, ...]] = field(default_factory=dict)
    relation: str = ""

    def __repr__(self) -> str:
        before = self.ground_truth and f"before {self.ground_truth!r:.60}"
        return one_line(self, f"{self.prompt!r:.80} of {self.subject!r:.60}", f"{self.answer!r:.60}", before)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError(f"the fact of {self.subject!r} has no prompt; give one")
        if not (self.target_new.strip() or self.ground_truth.strip()):
            raise InputError(f"{self.prompt!r:.80} has no answer; give `target_new`, `ground_truth` or both")
        if (slots := self.prompt.count(SLOT)) > 1:
            raise InputError(f"{self.prompt!r:.80} has {slots} places {SLOT} for the subject; leave one")
        if slots and not self.subject.strip():
            raise InputError(f"{self.prompt!r:.80} has a place {SLOT} for a subject, and there is none; give `subject`")

    @property
    def answer(self) -> str:
        """What should be answered: the new target, or the ground truth where nothing is to be changed."""
        return self.target_new or self.ground_truth

    @property
    def unchanged(self) -> Fact:
        """The same with the answer before any change; as it is where that is not known."""
        return replace(self, target_new="") if self.ground_truth else self

    @cached_property
    def text(self) -> str:
        """The prompt as it is asked, with the subject in it."""
        return self.prompt.replace(SLOT, self.subject)

    @cached_property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject stands in `text`: its first character, and the one after its last.

        In the place `{}` of the prompt; of a whole prompt where it stands last as words of their own, else at all, else
        in other case.

        Raises:
            InputError: if it is not in the prompt.
        """
        if SLOT in self.prompt:
            start = self.prompt.index(SLOT)
            return start, start + len(self.subject)
        name = re.escape(self.subject) if self.subject.strip() else r"\b\B"  # which is nowhere
        for pattern, flags in ((rf"(?<!\w){name}(?!\w)", 0), (name, 0), (name, re.IGNORECASE)):
            if found := [*re.finditer(pattern, self.text, flags)]:
                return found[-1].span()
        raise InputError(f"the subject {self.subject!r} is not in its prompt {self.text!r:.120}; write {SLOT} for it")

    @property
    def template(self) -> str:
        """The prompt with `{}` where the subject stands.

        Raises:
            InputError: if it is not in the prompt.
        """
        start, stop = self.subject_span
        return f"{self.text[:start]}{SLOT}{self.text[stop:]}"


def write_facts(facts: Iterable[Fact], path: str | Path) -> None:
    """Write facts as JSON lines; `facts.files.read_facts` gives them back.

    Args:
        facts: what to write, in order.
        path: the file to make or replace, whole or not at all; its folder is made too.
    """
    names = list(Fact.__dataclass_fields__)
    rows = ({name: value for name in names if (value := getattr(fact, name))} for fact in facts)
    write_json_lines(Path(path), rows)
