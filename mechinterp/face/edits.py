"""Edits in conflict and edits taken back, as runs that are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.conversations import Prompt
from mechinterp.data.facts.conflicts import Conflict, Round
from mechinterp.data.facts.pitfalls import Templates, read_conflicts, read_rounds
from mechinterp.data.facts.queries import Change
from mechinterp.data.pairs import AnyPair
from mechinterp.data.showing import shown
from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike
from mechinterp.face.progress import watched
from mechinterp.face.run_tables import RunTables
from mechinterp.methods.editors import MakeEdit
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.second_moments import SecondMoments
from mechinterp.models.text.chat import ChatChoice
from mechinterp.report.edits_in_words import edits_in_words, in_turn_in_words
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.edits import Editing, run_conflicts, run_in_turn, run_round_trips

Edits = WeightDelta | str | Path


@dataclass(frozen=True, eq=False, repr=False)
class EditTables(RunTables):
    """What edits do to each other.

    Attributes:
        run: the folder of it all.
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row per record: `conflicts`, `round_trip` or `edits_in_turn`."""
        return self.run.table(
            next(name for name in ("conflicts", "round_trip", "edits_in_turn") if name in self.run.tables)
        )

    @property
    def summary(self) -> pd.DataFrame:
        """Means over records, with their intervals; of edits in turn there are none."""
        return self.run.table("edits_summary")

    @property
    def blocks(self) -> pd.DataFrame:
        """Of round trips: the write of each changed block, and where its change came from."""
        return self.run.table("round_trip_blocks")

    def __str__(self) -> str:
        if "edits_in_turn" in self.run.tables:
            return "\n".join(in_turn_in_words(self.table))
        return "\n".join(edits_in_words(self.summary))

    def _repr_html_(self) -> str:
        return shown("edits", {}, self.table if "edits_in_turn" in self.run.tables else self.summary, note=str(self))


def edits_in_conflict(
    base: CheckpointLike,
    edits: str | MakeEdit | Sequence[Edits],
    records: Sequence[Conflict] | Sequence[Change] | str | Path,
    *,
    templates: Templates | str | Path | None = None,
    settings: BaseModel | Mapping[str, Any] | None = None,
    block: int | None = None,
    moments: SecondMoments | None = None,
    benign: Sequence[BenignPrompt] | str | Path = (),
    suffix: str | None = None,
    out: str | Path | None = None,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> EditTables:
    """Does the later edit win, and what is left of the earlier one?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes; left as it was.
        edits: an editor (`rome`, `memit`, `ft_m`; of pairs also `dinm`; or a function of a checkpoint and a list of
            facts or pairs that gives one edit), or a list of edits, made one on top of the other.
        records: of an editor conflicts, the file of ConflictEdit that has them, or pairs; of a list of edits the fact
            or pair that each was made of.
        templates: prompts by relation for a file of ConflictEdit, or their file.
        settings: of the editor.
        block: that DINM edits; by default each pair's toxic layer.
        moments: second moments of the base, where the editor needs them.
        benign: of pairs: harmless prompts with answers, `BenignPrompt`s or their file. They are tied to each conflict,
            and its twin among them is edited to its own answer.
        suffix: behind every prompt, of a list of edits; DINM has its own.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of the editor's contexts, and of intervals.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.compare` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        `.table`, a row per conflict, `.summary`; printed, a sentence per kind of conflict.

    Raises:
        InputError: for records or edits that are not there or do not fit.

    Example:
        >>> print(mi.edits_in_conflict("BASE", "ft_m", "coverage_edit.json", templates="conflict_prompts.json"))
    """
    check_seed(seed)
    if isinstance(records, str | Path):
        records = read_conflicts(records, templates)
    common: dict[str, Any] = {"out": None if out is None else Path(out), "truncate": truncate, "seed": seed}
    common |= {"chat": None if chat is None else ChatChoice(chat)}
    below = Candidate.of(base, name="base", dtype=dtype, device=device)
    with watched(progress) as reporter:
        if isinstance(edits, str) or callable(edits):
            if suffix is not None:
                raise InputError("`suffix` is for edits that are there; what makes edits has its own")
            editing = Editing(edits, settings, block, moments, seed)
            harmless = read_benign(benign) if isinstance(benign, str | Path) else benign
            return EditTables(run_conflicts(below, records, editing, benign=harmless, reporter=reporter, **common))  # type: ignore[arg-type]
        if not isinstance(edits, Sequence):
            raise InputError(f"`edits` is {edits!r:.60}; give an editor's name, or a list of edits")
        found = [_delta(each) for each in edits]
        changes = [one for one in records if not isinstance(one, Conflict)]
        return EditTables(run_in_turn(below, found, changes, suffix=suffix, reporter=reporter, **common))


def round_trip(
    base: CheckpointLike,
    edits: str | MakeEdit | tuple[Edits, Edits],
    records: Sequence[Round] | Sequence[AnyPair] | str | Path,
    *,
    templates: Templates | str | Path | None = None,
    all_back: bool = False,
    settings: BaseModel | Mapping[str, Any] | None = None,
    block: int | None = None,
    moments: SecondMoments | None = None,
    benign: Sequence[Prompt] = (),
    samples: int = 4,
    max_new_tokens: int = 32,
    suffix: str | None = None,
    out: str | Path | None = None,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> EditTables:
    """Edit, and edit back: what comes back of the answers, of the weights, and of what the MLPs write?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes; left as it was.
        edits: an editor, as `mi.edits_in_conflict` takes it, or two edits: there, and back (of the base, or of the
            model with the first).
        records: round trips, the file of RoundEdit that has them, or pairs: edited to their safe answer, and back to
            what the base says itself.
        templates: prompts by relation for a file of RoundEdit, or their file.
        all_back: of a file of RoundEdit: the way back edits all true answers at once (memit, ft_m).
        settings, block, moments: as `mi.edits_in_conflict`.
        benign: harmless prompts, at which the rounds of pairs ask too.
        samples: of the base's other answers that the rounds of pairs ask for.
        max_new_tokens: longest of them.
        suffix: behind every prompt, of two edits; DINM has its own.
        out, truncate, dtype, device, chat, progress: as `mi.edits_in_conflict`.
        seed: of drawn answers, too.

    Returns:
        `.table`, a row per round trip and place, `.blocks`, `.summary`; printed, a sentence per place.

    Raises:
        InputError: for records or edits that are not there or do not fit.

    Example:
        >>> print(mi.round_trip("BASE", "ft_m", "easy.json", templates="round_prompts.json"))
    """
    check_seed(seed)
    if isinstance(records, str | Path):
        records = read_rounds(records, templates, all_back=all_back)
    below = Candidate.of(base, name="base", dtype=dtype, device=device)
    if isinstance(edits, str) or callable(edits):
        editing: Editing | tuple[WeightDelta, WeightDelta] = Editing(edits, settings, block, moments, seed)
    else:
        if not isinstance(edits, Sequence) or len(edits) != 2:
            raise InputError(f"`edits` is {edits!r:.60}; give an editor's name, or two edits: there, and back")
        editing = (_delta(edits[0]), _delta(edits[1]))
    with watched(progress) as reporter:
        run = run_round_trips(
            below,
            records,
            editing,
            out=None if out is None else Path(out),
            benign=benign,
            samples=samples,
            max_new_tokens=max_new_tokens,
            suffix=suffix,
            truncate=truncate,
            seed=seed,
            chat=None if chat is None else ChatChoice(chat),
            reporter=reporter,
        )
    return EditTables(run)


def _delta(edit: Any) -> WeightDelta:
    if isinstance(edit, WeightDelta):
        return edit
    if not isinstance(edit, str | Path):
        raise InputError(f"{edit!r:.60} is no edit; give a mi.WeightDelta, or the folder of one")
    return WeightDelta.load(edit)
