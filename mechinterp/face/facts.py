"""What a model makes of facts, before and after a change of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.edits_found import find_edits
from mechinterp.answers.known_facts import KnownFacts
from mechinterp.answers.known_facts import known_facts as asked_of
from mechinterp.data.facts.fact import Fact
from mechinterp.data.showing import shown
from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike, facts_of, load
from mechinterp.face.looked_up import TunedLike
from mechinterp.face.progress import watched
from mechinterp.face.run_tables import RunTables
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.text.chat import ChatChoice
from mechinterp.report.facts_in_words import facts_in_words
from mechinterp.runs import facts as running
from mechinterp.runs.candidate import Candidate


@dataclass(frozen=True, eq=False, repr=False)
class FactTables(RunTables):
    """What models make of facts.

    Attributes:
        run: the folder of it all.
    """

    @property
    def table(self) -> pd.DataFrame:
        """A row per checkpoint and fact."""
        return self.run.table("facts")

    @property
    def summary(self) -> pd.DataFrame:
        """A row per checkpoint and quantity, with its interval; by kind and relation too."""
        return self.run.table("facts_summary")

    def __str__(self) -> str:
        return "\n".join(facts_in_words(self.summary))

    def _repr_html_(self) -> str:
        whole = self.summary[self.summary["kind"].isna() & self.summary["relation"].isna()]
        wanted = ["method", "quantity", "value", "value_low", "value_high", "n", "unit"]
        return shown("facts", {}, whole[wanted], note=str(self))


def evaluate_facts(
    model: TunedLike,
    facts: Sequence[Fact] | str | Path,
    *,
    base: CheckpointLike | None = None,
    edits: Mapping[int, WeightDelta] | str | Path | None = None,
    known: bool = False,
    out: str | Path | None = None,
    max_new_tokens: int | None = None,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> FactTables:
    """What a model answers to facts: edit success, in other words too, portability, locality; with intervals.

    Args:
        model: in memory, or a source that `mi.load` takes; an edit stands on `base`.
        facts: or the file of them: of our own, a set of KnowEdit, or a relation of LRE.
        base: the model before its change, asked the same; without it there is no locality.
        edits: of the model, which is then the base: by the number of the fact (from 1) that each was made for, or the
            folder of them; each is asked its own fact.
        known: leave out facts whose ground truth the model before its change does not answer right.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        max_new_tokens: let it answer by itself too, by so many tokens.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of drawn answers and intervals.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.compare` takes it.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        `.table`, a row per fact, `.summary`; printed, a sentence for each checkpoint.

    Raises:
        InputError: for facts or checkpoints that are not there or cannot be compared.

    Example:
        >>> print(mi.evaluate_facts("edited", "facts.jsonl", base="BASE"))
    """
    check_seed(seed)
    if edits is not None and base is not None:
        raise InputError("`edits` change the model, which is their base; leave `base` out")
    given = facts_of(facts)
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    with watched(progress) as reporter:
        own: dict[str, running.Edits] = {}
        before: Candidate | None
        if edits is not None:
            before, tuned = Candidate.of(model, name="base", **options), list[Candidate]()
            own["edits"] = dict(edits) if isinstance(edits, Mapping) else find_edits(edits)
        else:
            before = None if base is None else Candidate.of(base, name="base", **options)
            tuned = [running.named_apart(Candidate.of(model, base=before, **options), before)]
        run = running.evaluate_facts(
            before,
            tuned,
            given,
            edits=own,
            known=known,
            out=None if out is None else Path(out),
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=None if chat is None else ChatChoice(chat),
            reporter=reporter,
        )
    return FactTables(run)


def known_facts(
    model: CheckpointLike,
    facts: Sequence[Fact] | str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
) -> KnownFacts:
    """Which facts a model answers right, in every token: count them before you change it.

    Args:
        model: in memory, or a source that `mi.load` takes.
        facts: or the file of them; what counts is their ground truth.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: as `mi.load` takes it; facts are completions, which a chat model is best asked in plain text (`none`).

    Returns:
        `.known`, the facts; `.table`, a row per relation with an interval.

    Raises:
        InputError: for a model or facts that are not there.

    Example:
        >>> mi.known_facts("BASE", mi.common_facts()).known
    """
    given = facts_of(facts)
    with watched(progress=False):
        return asked_of(load(model, dtype=dtype, device=device, chat=chat), given)
