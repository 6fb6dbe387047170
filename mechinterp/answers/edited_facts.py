"""Facts edited one by one, each asked of its own edit: with which settings, and how well.

Settings are chosen on facts that are not reported, by the score of Meng et al. (2022, 2202.05262): the harmonic mean of
success, of success in other words and of locality, each a mean over the facts. What a fact does not have is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, harmonic_mean
from typing import Any

import pandas as pd

from mechinterp.answers.facts import FactAnswers, ask_facts
from mechinterp.answers.scored_facts import FactScores
from mechinterp.data.facts.fact import Fact
from mechinterp.errors import InputError
from mechinterp.methods.facts.editing import Editor, edit_facts
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import default_settings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.watching import Progress

Tries = Sequence[Mapping[str, Any]]
"""Settings to try, each in place of those of the architecture's family."""

TRIES: Mapping[str, Tries] = {
    "rome": (
        {},
        {"weight_decay": 0.5},
        {"clamp": 16.0},
        {"context_lengths": ()},
        {"context_lengths": (), "clamp": 16.0},
        {"context_lengths": (), "clamp": 16.0, "steps": 50},
        {"fact_token": "last"},
        {"fact_token": "last", "context_lengths": ()},
    ),
    "ft_m": ({}, {"learning_rate": 2e-3}, {"learning_rate": 5e-3}, {"learning_rate": 1e-2}),
}
"""What is tried on a model that the published settings were not made for; without contexts the bare prompt counts."""

SCORED = ("success", "rephrase", "locality")
"""What the score is the harmonic mean of."""


@dataclass(frozen=True)
class EditedFact:
    """An edit, and what the fact that it was made for came to."""

    edit: WeightDelta
    scores: FactScores


def edited_facts(
    base: Checkpoint,
    facts: Mapping[int, Fact],
    before: Mapping[int, FactAnswers],
    method: Editor,
    *,
    settings: Mapping[str, Any] | None = None,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[EditedFact]:
    """Edit every fact on the unedited model, and ask the edited one.

    Args:
        base: left as it was.
        facts: by number.
        before: what the base answers to them.
        method: the editor.
        settings: in place of those of the architecture's family.
        contexts, seed: as `edit_facts` takes them.
        progress: called with (facts done, facts in all).
    """
    chosen = default_settings(method, base, settings)
    requests = [Request.of(number, fact) for number, fact in facts.items()]
    given: dict[str, Any] = {"settings": chosen, "contexts": contexts, "seed": seed, "progress": progress}
    for request, edit in zip(requests, edit_facts(base, requests, method, **given), strict=True):
        with edit.applied(base) as edited:
            (after,) = ask_facts(edited, [facts[request.id]])
        yield EditedFact(edit, FactScores.of(request.id, facts[request.id], after, before[request.id]))


def score(found: Sequence[FactScores]) -> dict[str, float]:
    """The means of `SCORED` over facts, and their harmonic mean, `score`."""
    means = {}
    for name in SCORED:
        if values := [each.values[name] for each in found if name in each.values]:
            means[name] = fmean(values)
    return {**means, "score": harmonic_mean(means.values())}


def choose_settings(
    base: Checkpoint,
    facts: Mapping[int, Fact],
    before: Mapping[int, FactAnswers],
    method: Editor,
    tries: Tries,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The settings with the best score; of equals the first.

    Args:
        base, before, method, seed: as `edited_facts` takes them.
        facts: on which they are chosen.
        tries: settings, at least one.
        progress: called with (tries done, tries in all).

    Returns:
        The best of them, and a row per try: method, settings (JSON), n, the means and the score, chosen.

    Raises:
        InputError: without facts, and as `default_settings`.
    """
    if not facts:
        raise InputError("settings are chosen on facts, and there are none; give some, or nothing to try")
    rows: list[dict[str, Any]] = []
    for done, values in enumerate(tries, 1):
        found = edited_facts(base, facts, before, method, settings=values, seed=seed)
        said = {"method": method, "settings": json.dumps(dict(values)), "n": len(facts)}
        rows.append({**said, **score([each.scores for each in found])})
        if progress is not None:
            progress(done, len(tries))
    table = pd.DataFrame(rows)
    best = int(table["score"].argmax())
    return dict(tries[best]), table.assign(chosen=table.index == best)
