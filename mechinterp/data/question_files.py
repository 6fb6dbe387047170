"""Prompts with their answers in a file of any kind: what is to be forgotten, or to be kept.

A scope of KnowUnDo; JSON lines or a list of pairs (the unsafe answers), of benign prompts with answers, of
`[question, answer]`; any file of facts. Which it is shows in its first row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mechinterp.data.benign import read_benign
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.files import read_facts
from mechinterp.data.facts.knowedit import is_sanitation
from mechinterp.data.knowledge import read_knowledge
from mechinterp.data.knowundo import Part, is_scope, read_knowundo
from mechinterp.data.pair_files import read_pairs
from mechinterp.data.scopes import Question, Scopes, question_of
from mechinterp.data.texts import read_json_rows
from mechinterp.errors import InputError

WANTED = "prompts with answers: JSON of prompt and answer, facts, pairs, or a scope of KnowUnDo"


def read_questions(path: str | Path, part: Part = "train") -> list[Question]:
    """Read prompts with their answers.

    Args:
        path: UTF-8 JSON or JSON lines, see the module's text.
        part: of a scope of KnowUnDo: `train`, `val` or `both`.

    Returns:
        At least one, in the file's order.

    Raises:
        InputError: for a file that is none of these, or one without answers; names it.
    """
    return [question_of(one) if isinstance(one, Fact) else one for one in read_asked(path, part)]


def read_asked(path: str | Path, part: Part = "train") -> Sequence[Question | Fact]:
    """The same, but facts as they are, with all that is known of them."""
    first = next((row for _, row in read_json_rows(path, WANTED)), None)
    if is_scope(first):
        return read_knowundo(path, part)
    if isinstance(first, list):
        return list(read_knowledge(path))
    keys = set(first) if isinstance(first, Mapping) else set()
    if keys & {"unsafe", "unsafe generation"}:
        return list(Scopes.of_pairs(read_pairs(path)).forget)
    if keys & {"answer", "messages", "instances"}:
        benign = read_benign(path, what=WANTED)
        if found := [(one.prompt, one.answer) for one in benign if one.answer]:
            return list(found)
        raise InputError(f"{path}: none of its prompts has an answer; give {WANTED}")
    return read_facts(path, wanted=WANTED)


def read_scopes(
    forget: str | Path, retain: str | Path | None = None, part: Part = "train", *, relations: Sequence[str] = ()
) -> Scopes:
    """Read what is to be forgotten and what is to be kept.

    Args:
        forget: a file of `read_questions`; of facts that say it themselves (Sanitation) also what is kept.
        retain: likewise; None for nothing, or for what the first file has of it.
        part: of scopes of KnowUnDo.
        relations: the first file has facts, and those of these relations are forgotten; the others are kept.

    Raises:
        InputError: as `read_questions`; if both are the same; for a relation that no fact has.
    """
    if relations:
        found = Scopes.of_relations(read_facts(forget), relations)
        return found if retain is None else Scopes(found.forget, (*found.retain, *read_questions(retain, part)))
    first = next((row for _, row in read_json_rows(forget, WANTED)), None)
    if retain is None and isinstance(first, Mapping) and is_sanitation(first):
        return Scopes.of_facts(read_facts(forget))
    return Scopes(tuple(read_questions(forget, part)), () if retain is None else tuple(read_questions(retain, part)))
