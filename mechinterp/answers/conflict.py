"""Two edits of a model, one on top of the other: what is left of the first, and of what both stand on.

    cs          whether the second edit's answer is the more probable one of the two, after both
    cs_implied  the same of what the first edit would imply once both are made, where its kind has such a thing
    cm          share of the first answer's probability that the second edit took away: 1 gone, 0 intact, at least -1
    tfd         share of what the tied prompts' answers lose by both edits; `tfd_second`: by the second alone
    succ        whether the second edit, alone, brings its answer above the first one's

Li et al. 2024 (arXiv 2310.02129). What is the more probable of two answers need not be said: neither may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.in_turn import Edit, read_in_turn
from mechinterp.answers.probabilities import probabilities_of
from mechinterp.data.counting import many
from mechinterp.data.facts.conflicts import Conflict
from mechinterp.data.facts.queries import Query, asked_of
from mechinterp.errors import InputError
from mechinterp.measures.conflict import is_more_probable, lost_share
from mechinterp.methods.editors import Editor
from mechinterp.models.checkpoints import Checkpoint

SHARES = ("cs", "cs_implied", "succ")
MEANS = ("cm", "tfd", "tfd_second")


@dataclass(frozen=True)
class ConflictScores:
    """A conflict, as a model comes out of it.

    Attributes:
        conflict: which it is.
        values: quantity -> value, of the module's names, and the probabilities that they are made of.
    """

    conflict: Conflict
    values: dict[str, float]

    def row(self, method: str, number: int) -> dict[str, Any]:
        """Its row of the table `conflicts`."""
        first, second = asked_of(self.conflict.first), asked_of(self.conflict.second)
        known = {"kind": self.conflict.kind, "rule": self.conflict.rule}
        said = {"first_prompt": str(first.prompts[0]), "first_answer": first.answer}
        said |= {"second_prompt": str(second.prompts[0]), "second_answer": second.answer}
        return {"method": method, "record": number, **known, **said, **self.values}


def edits_in_conflict(
    base: Checkpoint, conflicts: Sequence[Conflict], editor: Editor, **scoring: Any
) -> Iterator[ConflictScores]:
    """Make every conflict's two edits on the unedited model, and the second alone; the model is left as it was.

    Args:
        base: the unedited model.
        conflicts: any number of them; memory does not grow with them.
        editor: makes the edits.
        scoring: see `probabilities_of`.

    Raises:
        InputError: for a text that does not fit, and as the editor.
    """
    for conflict in conflicts:
        asked = [asked_of(conflict.first), asked_of(conflict.second), *conflict.tied]
        asked += [] if conflict.implied is None else [conflict.implied]
        read = partial(probabilities_of, queries=asked, suffix=editor.suffix, **scoring)
        makers = [partial(_edit, editor, change) for change in (conflict.first, conflict.second)]
        before, after_first, after_both = read_in_turn(base, makers, read).read
        _, after_second = read_in_turn(base, makers[1:], read).read
        yield ConflictScores(conflict, _values(conflict, before, after_first, after_both, after_second))


def answers_in_turn(
    base: Checkpoint, edits: Sequence[Edit], asked: Sequence[Query], **scoring: Any
) -> Float[Tensor, "stage query"]:
    """Probability of what each of some edits should bring about: before them, and after each, made in their order.

    Args:
        base: the unedited model; left as it was.
        edits: any number of them.
        asked: one for each edit.
        scoring: see `probabilities_of`.

    Raises:
        InputError: for other numbers of edits and answers, or an edit of other weights.
    """
    if not edits or len(edits) != len(asked):
        raise InputError(
            f"{many(len(edits), 'edit')} and {many(len(asked), 'answer')}; give an answer for each edit, and at "
            "least one"
        )
    return torch.stack(read_in_turn(base, edits, partial(probabilities_of, queries=asked, **scoring)).read)


def forgetting_rows(
    method: str, found: Float[Tensor, "stage query"], asked: Sequence[Query]
) -> Iterator[dict[str, Any]]:
    """Rows of the table `edits_in_turn`: each edit after itself and after each later one."""
    for number, query in enumerate(asked, 1):
        alone = found[number, number - 1 : number]
        for stage in range(number, len(found)):
            now = found[stage, number - 1 : number]
            said = {"prompt": str(query.prompts[0]), "answer": query.answer}
            known = {"method": method, "edit": number, "after": stage, **said}
            yield {
                **known,
                "before": float(found[0, number - 1]),
                "probability": float(now),
                "cm": _one(lost_share, alone, now),
            }


def _edit(editor: Editor, change: Any, current: Checkpoint) -> Any:
    return editor.make(current, [change])


def _one(measure: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> float:
    return float(measure(first, second))


def _values(conflict: Conflict, before: Tensor, first: Tensor, both: Tensor, second: Tensor) -> dict[str, float]:
    tied = slice(2, 2 + len(conflict.tied))
    found = {"first_before": float(before[0]), "first_alone": float(first[0]), "first_both": float(both[0])}
    found |= {"second_alone": float(second[1]), "second_both": float(both[1])}
    found["cs"] = _one(is_more_probable, both[1:2], both[:1])
    if conflict.implied is not None:
        found |= {"implied_both": float(both[-1]), "cs_implied": _one(is_more_probable, both[-1:], both[:1])}
    found["cm"] = _one(lost_share, first[:1], both[:1])
    for name, after in (("tfd", both), ("tfd_second", second)):
        lost = lost_share(before[tied], after[tied], floor=None)
        found[name] = float(lost.mean()) if len(lost) else math.nan
    found["succ"] = _one(is_more_probable, second[1:2], second[:1])
    return found
