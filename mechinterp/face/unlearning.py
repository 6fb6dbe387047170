"""Unlearning: making a checkpoint that forgets, where to forget, and what is forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechinterp.answers.unlearned import ask_scopes, summary_rows
from mechinterp.data.pairs import AnyPair
from mechinterp.data.scopes import Scopes
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.kept_tables import keep_tables
from mechinterp.face.given import check_seed
from mechinterp.face.loading import CheckpointLike, instances_of, load
from mechinterp.face.progress import watched
from mechinterp.measures.gradient_region import Thresholds
from mechinterp.methods.forgetting import unlearnt
from mechinterp.methods.registry import find_unlearning
from mechinterp.methods.task import checked_settings
from mechinterp.methods.unlearning.region import GradientRegion, Per
from mechinterp.methods.unlearning.region import locate_by_gradient as located
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.models.checkpoints import Checkpoint

ScopesLike = Scopes | Sequence[AnyPair]
"""What is to be forgotten and kept; of pairs the unsafe answers, and their knowledge."""
SeveralLike = CheckpointLike | Mapping[str, CheckpointLike]
"""One checkpoint, or several by name."""


@dataclass(frozen=True, eq=False)
class UnlearningTables:
    """What checkpoints make of answers to forget and to keep.

    Attributes:
        summary: quantities with their intervals, a row each (table `unlearning`).
        answers: every question with what was said (table `unlearning_answers`).
    """

    summary: pd.DataFrame
    answers: pd.DataFrame

    def save(self, folder: str | Path) -> Path:
        """Keep the tables in a folder, whole or not at all.

        Raises:
            InputError: if the folder cannot be written, or holds what this tool did not write.
        """
        tables = {"unlearning": self.summary, "unlearning_answers": self.answers}
        return keep_tables(folder, "unlearning", tables, {})

    def __repr__(self) -> str:
        rows = self.summary[self.summary["quantity"] == "success"].to_dict("records")
        return one_line(self, *(f"{row['method']} {row['scope']} {row['value']:.2f}" for row in rows))

    def _repr_html_(self) -> str:
        return shown("what is forgotten, and what is kept", {}, self.summary, self.answers)


def unlearn(
    checkpoint: CheckpointLike,
    method: str,
    scopes: ScopesLike,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Checkpoint:
    """Make a checkpoint that forgets some answers and keeps others.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; left as it was.
        method: `ga`, `grad_diff`, `ga_kl`, `npo`, `simnpo`, `rmu`, `random_label` or `memflex`.
        scopes: what is to be forgotten and kept: `mi.Scopes`, what `mi.read_scopes` reads, or pairs.
        settings: of the method, as a study's config has them.
        seed: of the order of texts, and of all that the method draws.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The new checkpoint, in memory.

    Raises:
        InputError: for an unknown method or setting, or nothing to forget or to keep.

    Example:
        >>> mi.unlearn("BASE", "npo", mi.read_scopes("unlearn.json", "retention.json"))
    """
    check_seed(seed)
    find_unlearning(method)
    chosen = scopes_given(scopes)
    with watched(progress) as reporter:
        given = dict(settings or {})
        return unlearnt(method, load(checkpoint), chosen, settings=given, seed=seed, reporter=reporter)


def locate_by_gradient(
    checkpoint: CheckpointLike,
    scopes: ScopesLike,
    *,
    per: Per = "tensor",
    cosine: float | None = 0.5,
    magnitude: float | None = 0.5,
    quantiles: bool = True,
    corrupt: float = 0.5,
    copies: int = 3,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> GradientRegion:
    """Where the gradients of forgetting and keeping part, as MemFlex locates.

    Args:
        checkpoint: in memory, or a source that `mi.load` takes; left as it was.
        scopes: what is to be forgotten and kept: `mi.Scopes`, what `mi.read_scopes` reads, or pairs.
        per: `tensor`, `block`, or `neuron` (a row of an MLP's second matrix).
        cosine: mu, below which the cosine of the two gradients lies; None for no such condition.
        magnitude: sigma, above which the mean absolute gradient of forgetting lies; None for no such condition.
        quantiles: both are quantiles among all that is measured, and no numbers of their own.
        corrupt: of so large a share of an answer's tokens as many are drawn anew; 0 for the texts as they are.
        copies: of each text.
        settings: `only` and `freeze` (components), `adapter` (folder of one), `separator`, `max_length`, `max_tokens`.
        seed: of the draws.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The region: `.table`, `.names` and `.parameters` of what is located.

    Raises:
        InputError: for nothing to forget or to keep, or thresholds that locate nothing.

    Example:
        >>> mi.locate_by_gradient("BASE", mi.read_scopes("unlearn.json", "retention.json"), per="block").table
    """
    check_seed(seed)
    chosen = scopes_given(scopes)
    with watched(progress) as reporter:
        return located(
            load(checkpoint),
            chosen.forget,
            chosen.retain,
            per=per,
            thresholds=Thresholds(cosine, magnitude, quantiles),
            corrupt=corrupt,
            copies=copies,
            settings=checked_settings("locating by gradients", UnlearningSettings, settings or {}),
            seed=seed,
            progress=reporter.progress("locating"),
        )


def evaluate_unlearning(
    checkpoints: SeveralLike,
    scopes: ScopesLike,
    *,
    max_new_tokens: int = 32,
    prefix: str | None = None,
    separator: str | None = None,
    truncate: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> UnlearningTables:
    """What checkpoints make of answers that should be forgotten and kept: teacher-forced, and what they say themselves.

    Args:
        checkpoints: one, or several by name: in memory, or sources that `mi.load` takes.
        scopes: what is to be forgotten and kept: `mi.Scopes`, what `mi.read_scopes` reads, or pairs.
        max_new_tokens: longest answer that a checkpoint gives by itself.
        prefix: text before every prompt, such as an instruction to refuse.
        separator: between prompt and answer, and part of the answer, as in KnowUnDo; None: as texts are fed.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of the bootstrap.
        progress: whether a bar is shown; None: in a notebook or on a terminal.

    Returns:
        The tables: `.summary`, `.answers`, `.save(folder)`.

    Raises:
        InputError: for texts that are too long, or what is no checkpoint.

    Example:
        >>> mi.evaluate_unlearning({"base": "BASE", "npo": "runs/npo"}, scopes).summary
    """
    check_seed(seed)
    chosen = scopes_given(scopes)
    named = dict(checkpoints) if isinstance(checkpoints, Mapping) else {"": checkpoints}
    rows, answers = [], []
    with watched(progress) as reporter:
        for name, source in named.items():
            opened = load(source, name=name or None)
            found = ask_scopes(
                opened,
                chosen,
                max_new_tokens=max_new_tokens,
                prefix=prefix,
                separator=separator,
                truncate=truncate,
                progress=reporter.progress(f"reading: {opened.name}"),
            )
            rows += summary_rows(opened.name, found, seed=seed)
            answers += [each.row(opened.name) for each in found]
            del opened  # before the next is loaded
    return UnlearningTables(pd.DataFrame(rows), pd.DataFrame(answers))


def scopes_given(scopes: ScopesLike) -> Scopes:
    """Scopes, of pairs too.

    Raises:
        InputError: for what is neither.
    """
    return scopes if isinstance(scopes, Scopes) else Scopes.of_pairs(instances_of(scopes))
