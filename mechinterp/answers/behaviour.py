"""Behaviours: what a prompt's answer is judged for, so that an audit asks of any what it asks of unsafe answers.

    unsafe        answers unsafely; the judge is the user's choice
    refuses       refuses: the same pairs the other way round
    facts         gives the answer that was to be forgotten; the data are facts, or any prompts with answers
    trait:NAME    shows the trait; the data are topics with opinions

All of them come down to pairs (`data.behaviour_pairs`), of which the answer called `unsafe` shows the behaviour, and to
a judge, to which an answer is safe that does not show it. So columns and quantities called `unsafe` are of answers that
show the behaviour, whichever it is; sentences and figures have its own words (`wording`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mechinterp.answers.behaviour_judges import gives, refuses, shows
from mechinterp.answers.choosing import Named, choose_judge
from mechinterp.answers.holding import Holding, Holds
from mechinterp.answers.judges import Judge
from mechinterp.answers.wording import FORGOTTEN, REFUSING, TRAIT, UNSAFELY, Wording
from mechinterp.data.behaviour_pairs import pairs_of_facts, pairs_of_topics, turned
from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import AnyPair
from mechinterp.data.personality import Topic, read_personality
from mechinterp.data.question_files import read_asked
from mechinterp.data.scopes import Scopes
from mechinterp.data.showing import one_line
from mechinterp.errors import InputError, near


@dataclass(frozen=True)
class Behaviour:
    """What a prompt's answer is judged for.

    Attributes:
        wording: its name and how one speaks of it.
        pairs: makes pairs of the data; `unsafe` is the answer that shows it.
        of_pairs: the data are pairs, read as those are; else `pairs` reads its own files.
        judge: (pairs, seed) -> what tells whether an answer shows it; None: a judge of safety, chosen by the user.
        refusal: which of a pair's answers is a refusal, if either is.
    """

    wording: Wording
    pairs: Callable[[Any], list[AnyPair]] = list
    of_pairs: bool = True
    judge: Callable[[Sequence[AnyPair], int], Judge] | None = None
    refusal: Literal["safe", "unsafe"] | None = None

    def __repr__(self) -> str:
        return one_line(self, self.wording.name, f"{self.wording.shown} answers")

    @classmethod
    def of(cls, name: str, holds: Holds, *, shown: str, so: str) -> Behaviour:
        """One of your own, on pairs whose `unsafe` answer shows it and whose `safe` one does not.

        Args:
            name: in manifests.
            holds: (prompts, responses) -> whether each response shows it: 1, 0, or nan where that cannot be told.
            shown: what such an answer is, before the noun: `polite`.
            so: how a prompt is then answered, behind the verb: `politely`.
        """
        return cls(Wording(name, shown, so), judge=lambda _, __: Holding(name, holds))

    @classmethod
    def named(cls, given: Behaviour | str) -> Behaviour:
        """The one that is meant.

        Raises:
            InputError: for an unknown name.
        """
        if isinstance(given, Behaviour):
            return given
        trait = str(given).removeprefix(TRAIT)
        if trait and str(given).startswith(TRAIT):
            return cls(Wording.named(given), lambda data: _of_topics(data, trait), of_pairs=False, judge=shows)
        if given not in _KNOWN:
            known = (*_KNOWN, f"{TRAIT}NAME")
            raise InputError(f"unknown `behaviour` {given!r:.60}; known are {', '.join(known)}{near(given, known)}")
        return _KNOWN[given]

    @property
    def about_facts(self) -> bool:
        """Whether it is of facts, of which a prompt has each its own."""
        return self.wording == FORGOTTEN

    def refusals(self, pairs: Sequence[AnyPair]) -> list[str]:
        """The answers of pairs that are refusals; none where neither kind is."""
        return [] if self.refusal is None else [getattr(pair, self.refusal) for pair in pairs]


def judge_of(
    behaviour: Behaviour,
    judge: Named | Sequence[Named] | None,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    **choosing: Any,
) -> Judge:
    """The behaviour's own judge, or the one that is meant.

    Args:
        behaviour: what is judged.
        judge, instances, seed, choosing: as `choosing.choose_judge` takes them; of safety alone.

    Raises:
        InputError: for a judge of safety of another behaviour, or one that is not there.
    """
    if behaviour.judge is None:
        return choose_judge(judge, instances, seed=seed, **choosing)
    if judge is not None or any(choosing.get(name) is not None for name in ("responses", "safe_label")):
        raise InputError(f"{behaviour.wording.name} is told without a judge of safety; leave `judge` out")
    return behaviour.judge(instances, seed)


def _of_facts(data: Any) -> list[AnyPair]:
    """Pairs of facts, of prompts with answers, of what scopes have to forget, or of the file of any.

    Raises:
        InputError: for what is none of these.
    """
    if isinstance(data, Scopes):
        return pairs_of_facts(data.forget)
    if isinstance(data, str | Path):
        return pairs_of_facts(read_asked(data))
    if not isinstance(data, Sequence) or not all(isinstance(one, Fact) or _is_question(one) for one in data):
        raise InputError(
            "facts are mi.Fact or (prompt, answer), and the data have others; give what mi.read_facts or "
            "mi.read_questions reads, or the file"
        )
    return pairs_of_facts(data)


def _is_question(one: Any) -> bool:
    return isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], str)


def _of_topics(data: Any, trait: str) -> list[AnyPair]:
    """Pairs of topics, or of the file of them.

    Raises:
        InputError: for what is none of these, or another trait.
    """
    topics = read_personality(data) if isinstance(data, str | Path) else data
    if not isinstance(topics, Sequence) or not all(isinstance(one, Topic) for one in topics):
        raise InputError("a trait is asked for by mi.Topic; give what mi.read_personality reads, or the file")
    return pairs_of_topics(topics, trait)


UNSAFE = Behaviour(UNSAFELY, refusal="safe")
REFUSES = Behaviour(REFUSING, turned, judge=refuses, refusal="unsafe")
FACTS = Behaviour(FORGOTTEN, _of_facts, of_pairs=False, judge=gives)

_KNOWN = {one.wording.name: one for one in (UNSAFE, REFUSES, FACTS)}
