"""What edits towards traits do to each, as a run folder: of models that are there, or edits made topic by topic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.divergence import Opened
from mechinterp.answers.traits import Opinions, drawdowns, read_opinions, success_of
from mechinterp.audit.tables.traits import TRAITS, TRAITS_TOPICS
from mechinterp.data.personality import Topic, traits_of
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError, near
from mechinterp.measures.facts import mean_of_values
from mechinterp.methods.editors import Editor
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.edits import Editing
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace


@dataclass(frozen=True)
class _Reading:
    """How topics are read; `released` scores are read beside ours where they are asked for."""

    topics: Sequence[Topic]
    released: bool
    truncate: bool

    def of(self, checkpoint: Checkpoint, numbers: Sequence[int] | None = None) -> list[tuple[Opinions, ...]]:
        """Of each topic: ours, and as released."""
        own = self.topics if numbers is None else [self.topics[number] for number in numbers]
        ways = (False, True) if self.released else (False,)
        read = [read_opinions(checkpoint, own, released=way, truncate=self.truncate) for way in ways]
        return list(zip(*read, strict=True))

    def beside(self, number: int) -> int | None:
        """The other topic: the next one, of the last the first; None where there is no other."""
        return (number + 1) % len(self.topics) if len(self.topics) > 1 else None


def run_personality(
    base: Candidate,
    tuned: Sequence[Candidate],
    topics: Sequence[Topic],
    editing: Editing | None = None,
    *,
    out: Path | None,
    released: bool = False,
    truncate: bool = False,
    seed: int = 0,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Measure every trait after edits towards each: the tables `traits` and `traits_topics`.

    Args:
        base: the unedited model.
        tuned: models that were edited towards the trait that they are named by; none where `editing` makes the edits.
        topics: with opinions of the same traits.
        editing: edits the base towards each trait, topic by topic (`Topic.fact`); each is measured on its own topic.
        out: folder; None for one that goes with what is returned.
        released: score as the released code, too.
        truncate: cut prompts that exceed the context from the left, or raise.
        seed: of intervals.
        chat: which chat format all are read in.

    Raises:
        InputError: for topics of different traits, a model named by none of them, or nothing to measure.
    """
    traits = traits_of(topics)
    for candidate in tuned:
        if candidate.name not in traits:
            known = ", ".join(traits)
            raise InputError(
                f"{candidate.name!r} is no trait of the topics; known are {known}{near(candidate.name, traits)}"
            )
    if bool(tuned) == (editing is not None):
        raise InputError(
            "give models that were edited towards traits, or what edits the base towards each, one of the two"
        )
    base, tuned = in_one_format(base, tuned, chat)
    work = Workspace(base, tuned, out=out, of="personality", purpose="traits", reporter=reporter)
    RunFolder.check_free(work.folder, [TRAITS.name, TRAITS_TOPICS.name])
    work.check([topic.questions()[0] for topic in topics], truncate=truncate)
    reading = _Reading(topics, released, truncate)
    with work.held():
        with work.together():
            opened = work.open(base)
            before = reading.of(opened)
            whole = list(zip(topics, before, strict=True))
            rows = [row for topic, own in whole for row in _rows("base", "", topic, own, own, 0.0)]
            method = "given"
            if editing is not None:
                editor = editing.of(work, opened, [], truncate=truncate)
                method = editor.name
                rows += _by_topic(work, opened, reading, before, traits, editor)
            for candidate in tuned:
                rows += _of_model(work.open(candidate), opened, candidate.name, reading, before)
                work.identify(candidate)
            work.identify(base)
        work.close()
        config = {
            "base": base.source,
            "checkpoints": {candidate.name: candidate.source for candidate in tuned},
            "method": method,
            "topics": len(topics),
            "released": released,
            "truncate": truncate,
            "chat": described(base.chat),
        }
        tables = {TRAITS.name: pd.DataFrame(_means(rows, seed)), TRAITS_TOPICS.name: pd.DataFrame(rows)}
        return work.publish(tables, config, seed=seed, versions=versions())


def _of_model(
    tuned: Checkpoint, base: Checkpoint, trait: str, reading: _Reading, before: Sequence[tuple[Opinions, ...]]
) -> Iterator[dict[str, Any]]:
    """A model that was edited on all topics."""
    after, topics = reading.of(tuned), reading.topics
    ours = [each[0] for each in before]
    moved = drawdowns(_there(base), _there(tuned), topics, ours, truncate=reading.truncate)
    for number, (topic, then, now) in enumerate(zip(topics, before, after, strict=True)):
        other = reading.beside(number)
        yield from _rows("given", trait, topic, then, now, math.nan if other is None else moved[other])


def _by_topic(
    work: Workspace,
    base: Checkpoint,
    reading: _Reading,
    before: Sequence[tuple[Opinions, ...]],
    traits: Sequence[str],
    editor: Editor,
) -> Iterator[dict[str, Any]]:
    """An edit of the base for each topic and trait."""
    topics, done = reading.topics, 0
    progress = work.reporter.progress(f"traits: {editor.name}")
    for number, topic in enumerate(topics):
        for trait in traits:
            delta, other = editor.make(base, [topic.fact(trait)]), reading.beside(number)
            with delta.applied(base) as edited:
                (after,) = reading.of(edited, [number])
            moved = math.nan
            if other is not None:
                opened = partial(delta.applied, base)
                asked = [topics[other]]
                (moved,) = drawdowns(_there(base), opened, asked, [before[other][0]], truncate=reading.truncate)
            yield from _rows(editor.name, trait, topic, before[number], after, moved)
            progress(done := done + 1, len(topics) * len(traits))


def _there(checkpoint: Checkpoint) -> Opened:
    return lambda: nullcontext(checkpoint)


def _rows(
    method: str,
    edited: str,
    topic: Topic,
    before: Sequence[Opinions],
    after: Sequence[Opinions],
    moved: float,
) -> Iterator[dict[str, Any]]:
    """Of every trait of a topic: its opinions in each way of asking, before and after."""
    for trait in topic.opinions:
        scores = [success_of(trait, then, now) for then, now in zip(after, before, strict=True)]
        shift = after[0][trait].mean - before[0][trait].mean
        known = {"method": method, "topic": topic.name, "edited": edited, "measured": trait, "es": scores[0]}
        yield {**known, "es_released": scores[1] if len(scores) > 1 else math.nan, "shift": shift, "dd": moved}


def _means(rows: Sequence[Mapping[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["edited"], row["measured"]), []).append(row)
    for (method, edited, measured), own in groups.items():
        found: dict[str, Any] = {"method": method, "edited": edited, "measured": measured, "n": len(own)}
        for name in TRAITS.intervals:
            values = [row[name] for row in own]
            found |= mean_of_values(values, [row["topic"] for row in own], seed=seed).columns(name)
        yield {**found, "es_released": sum(row["es_released"] for row in own) / len(own)}
