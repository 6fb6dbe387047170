"""Edits in conflict and edits taken back, of one base, as a run folder; the base is the one model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mechinterp.answers.conflict import answers_in_turn, edits_in_conflict, forgetting_rows
from mechinterp.answers.rounds_of_pairs import rounds_of_pairs
from mechinterp.audit.edits_summary import summary_rows, unit_of
from mechinterp.audit.round_trips import RoundTrip, round_trip, round_trips
from mechinterp.audit.tables.conflicts import CONFLICTS, EDITS_IN_TURN, EDITS_SUMMARY, ROUND_TRIP, ROUND_TRIP_BLOCKS
from mechinterp.audit.tables.table import Table
from mechinterp.audit.toxic_layer import blocks_for
from mechinterp.data.benign import BenignPrompt
from mechinterp.data.conversations import Prompt
from mechinterp.data.counting import many
from mechinterp.data.facts.conflicts import Conflict, Round, conflicts_of_pairs
from mechinterp.data.facts.queries import Change, asked_of
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.methods.editors import Editor, MakeEdit, editor_of
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.progress import Reporter
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace

PURPOSE = "edits"


@dataclass(frozen=True)
class Editing:
    """Which editor makes the edits, and how.

    Attributes:
        method: a name, see `methods.editors`, or what makes an edit.
        settings: of the method.
        block: that DINM edits; by default each pair's toxic layer, located under `released`.
        moments: second moments of the base.
        seed: of the contexts that the model writes.
    """

    method: str | MakeEdit
    settings: BaseModel | Mapping[str, Any] | None = None
    block: int | None = None
    moments: SecondMoments | None = None
    seed: int = 0

    def of(self, work: Workspace, base: Checkpoint, pairs: Sequence[AnyPair], *, truncate: bool) -> Editor:
        """The editor on a base; DINM's blocks are located on the pairs where none is given."""
        blocks: Mapping[int, int] | int | None = self.block
        if self.method == "dinm" and blocks is None and pairs:
            located = work.locate(pairs, truncate=truncate)
            blocks = blocks_for(located, pairs, "released", reuse_first_layer=False)
        return editor_of(self.method, base, settings=self.settings, moments=self.moments, blocks=blocks, seed=self.seed)


@dataclass(frozen=True)
class Held:
    """What the runs of this file share: a base in its format, and a folder."""

    base: Candidate
    work: Workspace
    truncate: bool
    seed: int

    @classmethod
    def of(
        cls,
        base: Candidate,
        tables: Sequence[Table],
        *,
        out: Path | None,
        truncate: bool,
        seed: int,
        chat: ChatChoice | None,
        reporter: Reporter | None,
    ) -> Held:
        """Look all up before anything long."""
        base, _ = in_one_format(base, [], chat)
        work = Workspace(base, [], out=out, of="edits", purpose=PURPOSE, reporter=reporter)
        RunFolder.check_free(work.folder, [table.name for table in tables])
        work.check([], truncate=truncate)
        return cls(base, work, truncate, seed)

    def publish(self, method: str, tables: Sequence[tuple[Table, list[dict[str, Any]]]], **config: Any) -> RunFolder:
        """Leave the tables that have rows."""
        self.work.identify(self.base)
        self.work.close()
        frames = {table.name: pd.DataFrame(rows) for table, rows in _complete(tables) if rows}
        said = {"base": self.base.source, "method": method, "truncate": self.truncate, **config}
        said["chat"] = described(self.base.chat)
        return self.work.publish(frames, said, seed=self.seed, versions=versions())


def run_conflicts(
    base: Candidate,
    records: Sequence[Conflict] | Sequence[AnyPair],
    editing: Editing,
    *,
    out: Path | None,
    benign: Sequence[BenignPrompt] = (),
    truncate: bool = False,
    seed: int = 0,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Two edits each, one on top of the other: the tables `conflicts` and `edits_summary`.

    Args:
        base: the unedited model; left as it was.
        records: conflicts, or pairs, of which some are made (`conflicts_of_pairs`).
        editing: makes the edits.
        benign: harmless prompts, for the conflicts of pairs.
        out: folder; None for one that goes with what is returned.
        truncate: cut prompts that exceed the context from the left, or raise.
        seed: of intervals.
        chat: which chat format the base is read in.

    Raises:
        InputError: for no records, texts that do not fit, and as the editor.
    """
    conflicts, pairs = _parted(records, Conflict)
    conflicts = conflicts or conflicts_of_pairs(pairs, benign)
    held = Held.of(
        base, (CONFLICTS, EDITS_SUMMARY), out=out, truncate=truncate, seed=seed, chat=chat, reporter=reporter
    )
    rows: list[dict[str, Any]] = []
    with held.work.held():
        opened = held.work.open(held.base)
        editor = editing.of(held.work, opened, pairs, truncate=truncate)
        progress = held.work.reporter.progress(f"conflicts: {editor.name}")
        for found in edits_in_conflict(opened, conflicts, editor, truncate=truncate):
            rows.append(found.row(editor.name, len(rows) + 1))
            progress(len(rows), len(conflicts))
        units = [unit_of(one.first, number) for number, one in enumerate(conflicts)]
        summary = _by_kind(editor.name, rows, units, "kind", seed)
        return held.publish(editor.name, [(CONFLICTS, rows), (EDITS_SUMMARY, summary)], records=len(conflicts))


def run_in_turn(
    base: Candidate,
    edits: Sequence[WeightDelta],
    asked: Sequence[Change],
    *,
    out: Path | None,
    truncate: bool = False,
    suffix: str | None = None,
    seed: int = 0,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Edits that are there, one on top of the other: the table `edits_in_turn`.

    Args:
        base: the unedited model; left as it was.
        edits: of the base or each of the model that the ones before it left.
        asked: what each was made of.
        suffix: text behind every prompt.
        out, truncate, seed, chat, reporter: as `run_conflicts`.

    Raises:
        InputError: for other numbers of edits and of what they are asked, or an edit of other weights.
    """
    held = Held.of(base, (EDITS_IN_TURN,), out=out, truncate=truncate, seed=seed, chat=chat, reporter=reporter)
    queries = [asked_of(change) for change in asked]
    with held.work.held():
        opened = held.work.open(held.base)
        found = answers_in_turn(opened, edits, queries, truncate=truncate, suffix=suffix)
        rows = list(forgetting_rows("edits", found, queries))
        return held.publish("edits", [(EDITS_IN_TURN, rows)], edits=len(edits))


def run_round_trips(
    base: Candidate,
    records: Sequence[Round] | Sequence[AnyPair],
    editing: Editing | tuple[WeightDelta, WeightDelta],
    *,
    out: Path | None,
    benign: Sequence[Prompt] = (),
    samples: int = 4,
    max_new_tokens: int = 32,
    suffix: str | None = None,
    truncate: bool = False,
    seed: int = 0,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Edit away and back: the tables `round_trip`, `round_trip_blocks` and `edits_summary`.

    Args:
        base: the unedited model; left as it was.
        records: round trips, or pairs, of which some are made (`rounds_of_pairs`).
        editing: makes both edits; or two that are there, of which every record is asked.
        benign: harmless prompts, asked in the rounds of pairs.
        samples, max_new_tokens: of the base's answers that the rounds of pairs ask for.
        suffix: text behind every prompt, of edits that are there; an editor has its own.
        out, truncate, seed, chat, reporter: as `run_conflicts`; the seed is of drawn answers too.

    Raises:
        InputError: for no records, texts that do not fit, edits of other weights, and as the editor.
    """
    rounds, pairs = _parted(records, Round)
    if suffix is not None and isinstance(editing, Editing):
        raise InputError("`suffix` is for edits that are there; what makes edits has its own")
    tables = (ROUND_TRIP, ROUND_TRIP_BLOCKS, EDITS_SUMMARY)
    held = Held.of(base, tables, out=out, truncate=truncate, seed=seed, chat=chat, reporter=reporter)
    rows: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    units = []
    with held.work.held():
        opened = held.work.open(held.base)
        editor = None
        if isinstance(editing, Editing):
            editor = editing.of(held.work, opened, pairs, truncate=truncate)
            suffix = editor.suffix
        if pairs:
            rounds = rounds_of_pairs(
                opened,
                pairs,
                benign=benign,
                samples=samples,
                max_new_tokens=max_new_tokens,
                suffix=suffix,
                truncate=truncate,
                seed=seed,
            )
            if dropped := len(pairs) - len(rounds):
                held.work.reporter.note(f"{dropped} of {many(len(pairs), 'prompt')} without an answer to edit away")
        name = "edits" if editor is None else editor.name
        progress = held.work.reporter.progress(f"round trips: {name}")
        for number, found in enumerate(_trips(opened, rounds, editor, editing, suffix, truncate=truncate), 1):
            own = list(found.rows(name, number))
            rows += own
            units += [unit_of(found.round.away, number)] * len(own)
            blocks += found.blocks(name, number)
            progress(number, len(rounds))
        summary = _by_kind(name, rows, units, "on", seed)
        filled = [(ROUND_TRIP, rows), (ROUND_TRIP_BLOCKS, blocks), (EDITS_SUMMARY, summary)]
        return held.publish(name, filled, records=len(rounds), suffix=suffix)


def _trips(
    base: Checkpoint,
    rounds: Sequence[Round],
    editor: Editor | None,
    edits: Editing | tuple[WeightDelta, WeightDelta],
    suffix: str | None,
    *,
    truncate: bool,
) -> Iterator[RoundTrip]:
    if editor is not None:
        yield from round_trips(base, rounds, editor, truncate=truncate)
    elif not isinstance(edits, Editing):
        for one in rounds:
            yield round_trip(base, one, edits, suffix=suffix, truncate=truncate)


def _parted(records: Sequence[Any], kind: type[Any]) -> tuple[list[Any], list[Any]]:
    """Records of a kind, and pairs; of one of the two there are some."""
    own = [record for record in records if isinstance(record, kind)]
    pairs = [record for record in records if not isinstance(record, Conflict | Round)]
    if not records or (own and pairs) or len(own) + len(pairs) < len(records):
        raise InputError(
            f"there are no records to edit, or of several kinds; give a list of {kind.__name__} or of pairs"
        )
    return own, pairs


def _by_kind(
    method: str, rows: Sequence[Mapping[str, Any]], units: Sequence[Any], key: str, seed: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind in dict.fromkeys(row[key] for row in rows):
        chosen = [number for number, row in enumerate(rows) if row[key] == kind]
        found += summary_rows(method, kind, [rows[i] for i in chosen], [units[i] for i in chosen], seed=seed)
    return found


def _complete(tables: Sequence[tuple[Table, list[dict[str, Any]]]]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """Rows with every column of their table, in its order; what a record has not is empty."""
    for table, rows in tables:
        names = [*table.keys, *(name for names in table.columns for name in names.split(", "))]
        yield table, [{**dict.fromkeys(names), **row} for row in rows]
