"""An edit and its way back: what comes back of what the model said, of its weights, and of what its MLPs write.

    jsd            of the candidate answers' probabilities, before against after both edits; `jsd_away` after the first
    jsd_left       jsd / jsd_away: 0 behaves as before, 1 as after the first edit
    d              jsd as released, in nats and divided by the number of answers
    ir, fr         share of other true answers that are less probable than before, and whether they are more than half
    weights_left   |D_1 + D_2| / |D_1|
    write_left     share of the first edit's change of the write that stands after both
    erasure_left   the same of what its changed value vectors made of it

The write is what the MLPs of the changed blocks write along the direction in which the true answer is preferred to the
new one where their tokens part (`undoing`): through the value vectors (erasure) or through what flows into them
(bypass), `measures.decomposition`. A write that came back while its erasure stands is covered up: a second
bypass on top. D, IR and FR: Li et al. 2024 (arXiv 2310.02129); the rest is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mechinterp.answers.in_turn import Edit, Stages, read_in_turn
from mechinterp.answers.probabilities import probabilities_of
from mechinterp.audit.undoing import BlockUndone, Undone, undone
from mechinterp.data.facts.conflicts import ITSELF, Round
from mechinterp.data.facts.queries import asked_of
from mechinterp.measures.round_trip import (
    is_failure,
    left_of,
    left_of_change,
    released_distortion,
    share_fallen,
    shift_of_answers,
    success,
)
from mechinterp.methods.editors import Editor
from mechinterp.models.checkpoints import Checkpoint

SHARES = ("ir", "fr", "succ")
MEANS = ("jsd", "jsd_away", "d")
LEFT = ("jsd_left", "weights_left", "write_left", "erasure_left")
"""Ratios, which a first edit that did next to nothing makes huge: of records the median tells, not the mean."""


@dataclass(frozen=True)
class RoundTrip:
    """A round trip, as a model comes out of it.

    Attributes:
        round: which it is.
        on: where it is asked -> quantity -> mean over the sets of answers.
        weights_left: |D_1 + D_2| / |D_1|.
        written: what became of the write; None where no value matrix was changed.
    """

    round: Round
    on: dict[str, dict[str, float]]
    weights_left: float
    written: Undone | None

    def rows(self, method: str, number: int) -> Iterator[dict[str, Any]]:
        """Its rows of the table `round_trip`, one for each place where it is asked."""
        away = asked_of(self.round.away)
        true = self.round.candidates[ITSELF][0][0].answer
        known = {"method": method, "record": number, "kind": self.round.kind, "prompt": str(away.prompts[0])}
        for place, values in self.on.items():
            row = {**known, "true": true, "new": away.answer, "on": place, **values}
            if place == ITSELF:
                row |= {"weights_left": self.weights_left}
                row |= {} if self.written is None else self.written.columns
            yield row

    def blocks(self, method: str, number: int) -> Iterator[dict[str, Any]]:
        """Its rows of the table `round_trip_blocks`."""
        found: Sequence[BlockUndone] = () if self.written is None else self.written.blocks
        for one in found:
            yield {"method": method, "record": number, **vars(one)}


def round_trips(base: Checkpoint, rounds: Sequence[Round], editor: Editor, **scoring: Any) -> Iterator[RoundTrip]:
    """Edit away and back, record by record; the model is left as it was.

    Args:
        base: the unedited model.
        rounds: any number of them; memory does not grow with them.
        editor: makes both edits.
        scoring: see `probabilities_of`.

    Raises:
        InputError: for a text that does not fit, and as the editor.
    """
    for one in rounds:
        makers: list[Edit] = [partial(_edit, editor, [one.away]), partial(_edit, editor, one.back)]
        yield round_trip(base, one, makers, suffix=editor.suffix, **scoring)


def round_trip(base: Checkpoint, one: Round, edits: Sequence[Edit], **scoring: Any) -> RoundTrip:
    """What two edits leave, the second of which should take back the first; the model is left as it was.

    Args:
        base: the unedited model.
        one: what is asked.
        edits: the way there and the way back.
        scoring: see `probabilities_of`.

    Raises:
        InputError: for a text that does not fit, or an edit of other weights.
    """
    sets = [(place, queries) for place, found in one.candidates.items() for queries in found]
    asked = [asked_of(one.away), *(query for _, queries in sets for query in queries)]
    stages = read_in_turn(base, edits, partial(probabilities_of, queries=asked, **scoring))
    away, back = stages.deltas
    on: dict[str, list[dict[str, float]]] = {}
    at = 1
    for place, queries in sets:
        part = [values[at : at + len(queries)] for values in stages.read]
        at += len(queries)
        on.setdefault(place, []).append(_of_set(part))
    on[ITSELF][0]["succ"] = _success(stages)
    around = {name: scoring[name] for name in ("suffix", "truncate") if name in scoring}
    return RoundTrip(
        one,
        {place: _mean(values) for place, values in on.items()},
        left_of_change(away.tensors, back.tensors),
        undone(base, stages.deltas, one.candidates[ITSELF][0][0], asked[0].answer, **around),
    )


def _edit(editor: Editor, changes: Sequence[Any], current: Checkpoint) -> Any:
    return editor.make(current, changes)


def _success(stages: Stages[Tensor]) -> float:
    """Of the new answer, which is read first, and the true one that was edited, which is read next."""
    (new_1, true_1), (new_2, true_2) = (values[:2].tolist() for values in stages.read[1:])
    return success(new_1, true_1, new_2, true_2)


def _of_set(read: Sequence[Tensor]) -> dict[str, float]:
    """A set of answers before, after the first edit, and after both."""
    before, away, both = read
    jsd, jsd_away, fallen = (
        shift_of_answers(before, both),
        shift_of_answers(before, away),
        share_fallen(before[1:], both[1:]),
    )
    found = {"answers": float(len(before)), "true_before": float(before[0]), "true_away": float(away[0])}
    found |= {"true_back": float(both[0]), "jsd_away": jsd_away, "jsd": jsd}
    return {**found, "d": released_distortion(jsd, len(before)), "ir": fallen, "fr": is_failure(fallen)}


def _mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over the sets of answers of one place, of what is defined; what is left is a ratio of such means."""
    names = dict.fromkeys(name for each in values for name in each)
    found = {}
    for name in names:
        known = torch.tensor([each[name] for each in values if name in each], dtype=torch.float64)
        found[name] = float(known.nanmean()) if len(known) else math.nan
    return {**found, "jsd_left": left_of(found["jsd_away"], found["jsd"])}
