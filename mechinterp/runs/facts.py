"""What any number of checkpoints make of facts, or many edits each of its own; one model is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.facts import FactAnswers, ask_facts, asked_of
from mechinterp.answers.known_facts import is_right
from mechinterp.answers.scored_facts import FactScores, summary_rows
from mechinterp.audit.tables.facts import FACTS, FACTS_SUMMARY
from mechinterp.data.counting import many
from mechinterp.data.facts.fact import Fact
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.measures.intervals import ends
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace

Edits = Mapping[int, WeightDelta | Path]
"""Number of a fact, from 1 -> the edit that was made for it, or its folder."""


@dataclass(frozen=True)
class Asking:
    """How facts are asked.

    Attributes:
        max_new_tokens: of what a checkpoint says by itself; None for nothing.
        truncate: cut prompts that exceed the context from the left, or raise.
        seed: of drawn answers and intervals.
    """

    max_new_tokens: int | None = None
    truncate: bool = False
    seed: int = 0

    def of(self, checkpoint: Checkpoint, facts: Sequence[Fact], **more: Any) -> list[FactAnswers]:
        """What a checkpoint answers."""
        return ask_facts(checkpoint, facts, **vars(self), **more)


@dataclass
class _Found:
    """Tables in the making."""

    seed: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)
    said: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(
        self,
        method: str,
        facts: Mapping[int, Fact],
        answers: Mapping[int, FactAnswers],
        before: Mapping[int, FactAnswers],
    ) -> None:
        """The rows of a checkpoint; without `before` it is the base, or has none."""
        scores = [FactScores.of(number, facts[number], own, before.get(number)) for number, own in answers.items()]
        self.rows += [each.row(method) for each in scores]
        self.summary += summary_rows(method, scores, seed=self.seed)
        spoken = [
            {"fact": number, "prompt": facts[number].text, "answer": own.said.text, "drawn": own.said.drawn}
            for number, own in answers.items()
            if own.said is not None
        ]
        if spoken:
            self.said[method] = spoken

    def tables(self) -> dict[str, pd.DataFrame]:
        """Both, with every column of theirs."""
        found = {}
        for table, rows in ((FACTS, self.rows), (FACTS_SUMMARY, self.summary)):
            named = [name for names in table.columns for name in names.split(", ")]
            columns = [*table.keys, *named, *(end for name in table.intervals for end in ends(name))]
            found[table.name] = pd.DataFrame(rows, columns=columns)
        return found


def evaluate_facts(
    base: Candidate | None,
    tuned: Sequence[Candidate],
    facts: Sequence[Fact],
    *,
    edits: Mapping[str, Edits] | None = None,
    known: bool = False,
    out: Path | None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    truncate: bool = False,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Ask checkpoints facts, and measure what their changes did to them.

    Args:
        base: the unchanged model, against which locality is; None where there is none.
        tuned: what is asked beside it.
        facts: any number of them.
        edits: of the base, by a name for the tables: each is asked the fact that it was made for, no other.
        known: leave out facts whose ground truth the base, or the one model, does not answer right in every token.
        out: folder for `tables`, `answers` and `manifest.json`; None for one that goes with what is returned.
        max_new_tokens: of what each says by itself to the facts' prompts; nothing is said if not given.
        seed: of drawn answers and intervals.
        truncate: cut prompts that exceed the context from the left, or raise.
        chat: which chat format all of them are read in, see `one_format`.
        reporter: told what is being done.

    Returns:
        The folder, with the tables `facts` and `facts_summary`.

    Raises:
        InputError: without a fact that is asked, for edits without a base or of no fact, or checkpoints that cannot be
            compared.
    """
    edits, by_number = edits or {}, dict(enumerate(facts, 1))
    _check(base, tuned, by_number, edits)
    first, others = in_one_format(base or tuned[0], tuned if base else tuned[1:], chat)
    work = Workspace(first, others, out=out, of="facts", purpose="evaluation", reporter=reporter)
    answering = [] if max_new_tokens is None else [first.name, *edits, *(candidate.name for candidate in others)]
    RunFolder.check_free(work.folder, [FACTS.name, FACTS_SUMMARY.name], answers=answering)
    prompts = list(dict.fromkeys(prompt for fact in facts for prompt, _ in asked_of(fact)))
    work.check(prompts, truncate=truncate)
    asking, found = Asking(max_new_tokens, truncate, seed), _Found(seed)

    def ask(candidate: Candidate) -> dict[int, FactAnswers]:
        progress = work.reporter.progress(f"facts: {candidate.name}")
        answers = asking.of(work.open(candidate), list(by_number.values()), progress=progress)
        work.identify(candidate)
        return dict(zip(by_number, answers, strict=True))

    with work.held():
        of_first = ask(first)
        if known:
            of_first = {number: each for number, each in of_first.items() if is_right(each.truth)}
            work.reporter.note(
                f"{first.name} answers {len(of_first)} of {len(facts)} facts right; the others are left out"
            )
            by_number = {number: by_number[number] for number in of_first}
        if not by_number:
            raise InputError(f"{first.name} answers none of the facts right; give others, or leave `known` out")
        before = of_first if base else {}
        found.add(first.name, by_number, of_first, {})
        for name, own in edits.items():
            made = {number: edit for number, edit in own.items() if number in by_number}
            answers = _of_edits(work, made, by_number, asking, name)
            found.add(name, by_number, answers, before)
        for candidate in others:
            found.add(candidate.name, by_number, ask(candidate), before)
        work.close()
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (first, *others)},
            "edits": {name: len(own) for name, own in edits.items()},
            "facts": len(facts),
            "known": known,
            "max_new_tokens": max_new_tokens,
            "truncate": truncate,
            "chat": described(first.chat),
        }
        return work.publish(found.tables(), config, answers=found.said, seed=seed, versions=versions())


def _of_edits(
    work: Workspace, edits: Edits, facts: Mapping[int, Fact], asking: Asking, name: str
) -> dict[int, FactAnswers]:
    """What each edit of the base answers to its own fact."""
    base, progress, answers = work.open(work.base), work.reporter.progress(f"facts: {name}"), dict[int, FactAnswers]()
    for number in sorted(edits):
        edit = edits[number]
        delta = edit if isinstance(edit, WeightDelta) else WeightDelta.load(edit)
        with delta.applied(base) as edited:
            (answers[number],) = asking.of(edited, [facts[number]])
        progress(len(answers), len(edits))
    if without := len(facts) - len(edits):
        work.reporter.note(f"{name}: no edit for {without} of {len(facts)} facts")
    return answers


def _check(
    base: Candidate | None, tuned: Sequence[Candidate], facts: Mapping[int, Fact], edits: Mapping[str, Edits]
) -> None:
    if not facts:
        raise InputError("there are no facts to ask; give at least one")
    if edits and base is None:
        raise InputError("edits change a base; give it")
    if base is None and not tuned:
        raise InputError("there is no model to ask; give one")
    taken = {candidate.name for candidate in (base, *tuned) if candidate is not None}
    if both := sorted(taken & set(edits)):
        raise InputError(f"`{both[0]}` is the name of a checkpoint already; give the edits another")
    for name, own in edits.items():
        if strange := sorted(set(own) - set(facts)):
            raise InputError(f"{name}: edits {strange[:5]} are of no fact; the {many(len(facts), 'fact')} count from 1")


def named_apart(candidate: Candidate, base: Candidate | None) -> Candidate:
    """A checkpoint whose own name is not that of the base."""
    return replace(candidate, name="tuned") if base is not None and candidate.name == base.name else candidate
