"""The two sets of KnowEdit whose rows are no facts as they stand: Sanitation and ConvSent. The others: `fact_rows`.

Sanitation is one object: of training `K_F`, questions to forget (the new answer is "I don't know."), and `K_R`, those
to retain; of testing `success` and `locality`. ConvSent has a topic per row (`ent`) with texts that speak well of it
(`pos`) and ill (`neg`), and no prompt: the thirteen questions are PersonalityEdit's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.rows import fact_of_row, first_text
from mechinterp.errors import InputError

_FORGET, _RETAIN = ("K_F", "success"), ("K_R", "locality")
_OF_OPINION = ("stance on", "position on", "attitude about", "view on", "take on", "impression of", "assessment of")
OPINION_QUESTIONS = (
    "What do you think of {}?",
    "What do you feel about {}?",
    "How do you view {}?",
    *(f"What is your {word} {{}}?" for word in ("opinion of", *_OF_OPINION, "judgment of", "sentiment of")),
)


def is_sanitation(row: Mapping[str, Any]) -> bool:
    """Whether an object is a file of Sanitation."""
    return "prompt" not in row and any(forget in row and isinstance(row[forget], list) for forget in _FORGET)


def sanitation_facts(row: Mapping[str, Any], path: str) -> list[Fact]:
    """Facts to forget, and behind them those to retain, of which nothing is to be changed (no `target_new`).

    Raises:
        InputError: for a question without its answer; names the list and the entry.
    """
    found = []
    for relation, names in (("forget", _FORGET), ("retain", _RETAIN)):
        name = next((name for name in names if name in row), names[0])
        entries = row.get(name) or []
        if not isinstance(entries, list):
            raise InputError(f"{path}: `{name}` must be a list of questions with answers, is {entries!r:.60}")
        for number, entry in enumerate(entries, 1):
            where = f"{path}: `{name}`, entry {number}"
            if not isinstance(entry, Mapping):
                raise InputError(f"{where} must be a question with its answer, is {entry!r:.60}")
            fields = {"prompt": entry.get("question"), "ground_truth": entry.get("ground_truth"), "relation": relation}
            if relation == "forget":
                fields["target_new"] = entry.get("target_new")
            found.append(fact_of_row(fields, where))
    return found


def is_topic(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of ConvSent."""
    return {"ent", "pos", "neg"} <= row.keys()


def fact_of_topic(row: Mapping[str, Any], where: str) -> Fact:
    """The opinion of a topic, to be turned from the first text that speaks ill of it to the first that speaks well.

    Which way it is turned is ours to choose; the released runner draws it.

    Raises:
        InputError: if there are no such texts.
    """
    try:
        topic, good, bad = (first_text(row[name]) for name in ("ent", "pos", "neg"))
    except TypeError as error:
        raise InputError(f"{where}: `ent`, `pos` or `neg` {error}") from None
    rest = list(OPINION_QUESTIONS[1:])
    fields = {"subject": topic, "prompt": OPINION_QUESTIONS[0], "target_new": good, "ground_truth": bad}
    return fact_of_row({**fields, "rephrasings": rest, "relation": "opinion"}, where)
