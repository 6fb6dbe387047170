"""Edits in conflict, and edits taken back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import LearningRate, Model, Prompts, Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.data.pairs import AnyPair
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.models.text.chat import ChatChoice
    from mechinterp.runs.edits import Editing

commands = typer.Typer()


class EditorNames(StrEnum):
    """What makes the edits."""

    rome = "rome"
    memit = "memit"
    alphaedit = "alphaedit"
    ft_m = "ft_m"
    dinm = "dinm"


OPTIONS: dict[str, Any] = {
    "method": Annotated[EditorNames | None, typer.Option(help="What makes the edits: of --data any, else not dinm.")],
    "layer": Annotated[int | None, typer.Option(min=0, help="The edited block; the method's own if not given.")],
    "steps": Annotated[int | None, typer.Option(min=0, help="Optimiser steps of each edit.")],
    "lr": LearningRate,
    "without_constraint": Annotated[
        bool,
        typer.Option("--without-constraint", help="Of dinm: no L_c, for pairs without knowledge."),
    ],
    "moments": Annotated[
        Path | None,
        typer.Option(help="Second moments (.safetensors) for memit, alphaedit; mechinterp edit makes them."),
    ],
}


@dataclass(frozen=True)
class Method:
    """The options that say what makes the edits."""

    method: EditorNames | None = None
    layer: int | None = None
    steps: int | None = None
    lr: float | None = None
    without_constraint: bool = False
    moments: Path | None = None

    def editing(self, seed: int, *, pairs: bool, otherwise: str = "edits that are there: --edit") -> Editing:
        """What a run takes.

        Args:
            seed: of the contexts that the model writes.
            pairs: whether pairs are edited, or facts.
            otherwise: what may be given instead of a method.

        Raises:
            InputError: without a method, for one that does not edit these, or that needs moments and has none.
        """
        from mechinterp.models.passes.second_moments import SecondMoments
        from mechinterp.runs.edits import Editing

        if self.method is None:
            raise InputError(f"give what makes the edits: --method, or {otherwise}")
        if self.method is EditorNames.dinm and not pairs:
            raise InputError("--method dinm edits pairs, not facts; choose rome, memit or ft_m")
        if self.method is EditorNames.memit and self.moments is None:
            made = "mechinterp edit --method memit --texts FILE --moments FILE"
            raise InputError(f"--method memit needs second moments: give --moments, which `{made}` makes")
        given: dict[str, Any] = {"steps": self.steps, "learning_rate": self.lr}
        if self.method in (EditorNames.rome, EditorNames.memit, EditorNames.alphaedit):
            given["blocks"] = None if self.layer is None else (self.layer,)
            given["fact_token"] = "last" if pairs else None  # a pair has no subject
        elif self.method is EditorNames.ft_m:
            given["block"] = self.layer
        if self.without_constraint and self.method is not EditorNames.dinm:
            raise InputError(f"--without-constraint is not for --method {self.method.value}")
        given["use_constraint"] = False if self.without_constraint else None
        settings = {name: value for name, value in given.items() if value is not None}
        moments = None if self.moments is None else SecondMoments.load(self.moments)
        return Editing(self.method.value, settings, self.layer, moments, seed)


of_an_editor = adding("editor", OPTIONS, Method, vars(Method()))
"""Gives a command these options, which it gets as one argument, `editor`: a `Method`."""

Templates = Annotated[
    Path | None, typer.Option(help="Of --records: a JSON object of relation -> prompts with {} for the subject.")
]
PairsFile = Annotated[Path | None, typer.Option(help="Pairs, as every --data.")]
EditFolders = Annotated[
    list[Path] | None, typer.Option("--edit", help="Folder of an edit that is there; repeatable, in their order.")
]
Suffix = Annotated[str | None, typer.Option(help="Behind every prompt, with --edit; dinm has its own.")]


@commands.command("conflict")
@in_chat_format
@of_pairs
@of_an_editor
@of_a_model
def conflict(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    records: Annotated[Path | None, typer.Option(help="Records of ConflictEdit, JSON.")] = None,
    templates: Templates = None,
    data: PairsFile = None,
    prompts: Prompts = None,
    edit: EditFolders = None,
    suffix: Suffix = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N records or pairs.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    editor: Method,
) -> None:
    """Two edits, one on top of the other: does the later win, and what is left of the earlier and of what is tied?

    --out gets tables/conflicts.csv, a row per record, and edits_summary.csv. Of --data each pair is edited to its safe
    answer, then to another one, and to its unsafe one; with --prompts, harmless ones with answers, its twin among them
    to its own, too. With --edit (of instances of --data) the edits that are there are made in turn: edits_in_turn.csv.
    """
    from mechinterp.data.benign import read_benign
    from mechinterp.data.facts.pitfalls import read_conflicts
    from mechinterp.report.edits_in_words import edits_in_words, in_turn_in_words
    from mechinterp.runs.edits import run_conflicts, run_in_turn

    common: dict[str, Any] = {"out": out, "truncate": truncate, "seed": seed, "chat": chat}
    base = loading.candidate(model)
    if edit:
        if editor != Method() or data is None:
            raise InputError(
                "--edit goes with --data, whose instances they are of, and without --method and its options"
            )
        _check_unused("--edit", prompts=prompts, limit=limit)
        deltas = _edits(edit)
        pairs = _pairs_of(deltas, reading.of(data), data)
        with reporting() as terminal:
            run = run_in_turn(base, deltas, pairs, suffix=suffix, reporter=terminal, **common)
        lines = in_turn_in_words(run.table("edits_in_turn"))
    else:
        _check_one(records, data, templates, prompts)
        _check_unused("--method", suffix=suffix)
        editing = editor.editing(seed, pairs=data is not None)
        chosen: Any = reading.of(data) if data is not None else read_conflicts(str(records), templates)
        common["benign"] = [] if prompts is None else read_benign(prompts, what="prompts")
        with reporting() as terminal:
            run = run_conflicts(base, chosen[:limit], editing, reporter=terminal, **common)
        lines = edits_in_words(run.table("edits_summary"))
    for line in lines:
        say(line)
    say(f"tables: {out / 'tables'}")


@commands.command("round-trip")
@in_chat_format
@of_pairs
@of_an_editor
@of_a_model
def round_trip(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    records: Annotated[Path | None, typer.Option(help="Records of RoundEdit, JSON.")] = None,
    templates: Templates = None,
    all_back: Annotated[
        bool, typer.Option("--all-back", help="Of --records: edit all true answers back at once (memit, ft_m).")
    ] = False,
    data: PairsFile = None,
    prompts: Prompts = None,
    samples: Annotated[int, typer.Option(min=1, help="Of --data: answers of the model drawn at each prompt.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest of them, in tokens.")] = 32,
    edit: EditFolders = None,
    suffix: Suffix = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N records or pairs.")] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    editor: Method,
) -> None:
    """Edit, and edit back: what comes back of the answers, of the weights, and of what the MLPs write?

    --out gets tables/round_trip.csv, a row per record and place, round_trip_blocks.csv and edits_summary.csv. Of --data
    each pair is edited to its safe answer and back to what the model says itself, asked at its own prompt, at its
    generalisation prompts, and at --prompts, harmless ones. Two --edit that are there take the place of --method.
    """
    from mechinterp.data.benign import read_benign
    from mechinterp.data.facts.pitfalls import read_rounds
    from mechinterp.report.edits_in_words import edits_in_words
    from mechinterp.runs.edits import run_round_trips

    _check_one(records, data, templates, prompts)
    editing: Any
    if edit:
        if editor != Method() or len(edit) != 2:
            raise InputError("give two --edit, there and back, and no --method nor its options")
        editing = tuple(_edits(edit))
    else:
        editing = editor.editing(seed, pairs=data is not None)
        if all_back and editor.method is EditorNames.rome:
            raise InputError(
                "--all-back edits several answers at once, which --method rome cannot; choose memit or ft_m"
            )
    chosen: Any = reading.of(data) if data is not None else read_rounds(str(records), templates, all_back=all_back)
    benign = [] if prompts is None else [one.prompt for one in read_benign(prompts, what="prompts")]
    with reporting() as terminal:
        run = run_round_trips(
            loading.candidate(model),
            chosen[:limit],
            editing,
            out=out,
            benign=benign,
            samples=samples,
            max_new_tokens=max_new_tokens,
            suffix=suffix,
            truncate=truncate,
            seed=seed,
            chat=chat,
            reporter=terminal,
        )
    for line in edits_in_words(run.table("edits_summary")):
        say(line)
    say(f"tables: {out / 'tables'}")


def _check_one(records: Path | None, data: Path | None, templates: Path | None, prompts: Path | None) -> None:
    if (records is None) == (data is None):
        raise InputError("give what is edited: --records, or --data with pairs, one of the two")
    if records is None:
        _check_unused("--data", templates=templates)
    else:
        _check_unused("--records", prompts=prompts)


def _check_unused(way: str, **given: object) -> None:
    """Refuse options that would do nothing."""
    if found := [name for name, value in given.items() if value is not None]:
        raise InputError(f"`{found[0]}` is not for {way}")


def _edits(folders: list[Path]) -> list[WeightDelta]:
    from mechinterp.models.deltas import WeightDelta

    return [WeightDelta.load(folder) for folder in folders]


def _pairs_of(edits: list[WeightDelta], pairs: list[AnyPair], data: Path) -> list[AnyPair]:
    """The pair that each edit was made of, by its number."""
    by_id = {pair.id: pair for pair in pairs}
    if unknown := [edit.instance for edit in edits if edit.instance not in by_id]:
        raise InputError(f"{data}: no instance has the id {unknown[0]}, which an edit is of")
    return [by_id[edit.instance] for edit in edits]
