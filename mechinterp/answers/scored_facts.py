"""What the answers to facts come to, before and after a change of the model: KnowEdit's measures, fact by fact.

    success      token accuracy of the new answer to the fact's own prompt (reliability)
    truth        the same of the answer before
    rephrase     token accuracy of the answer that should come, to the prompt in other words (generalisation)
    portability  token accuracy of what follows from the new fact
    locality     share of an answer's tokens at which the most probable token is the one that it was before the change,
                 right or wrong; of a fact of which nothing is to be changed its own prompt counts too
    said_target  whether the new answer, or the one before where there is none, occurs in what the model says itself
    same_answer  share of the tokens of what the base said itself that it still says in the same place
    fluency      entropy in bits of the words' n-grams in prompt and drawn answer (`measures.fluency`)

NAME_all is the share of answers of which all tokens are right (for locality: the same). Published percentages are 100
times these, published fluency 100 times this. What a fact does not have is not there; what a model makes no number of
is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mechinterp.answers.facts import FactAnswers
from mechinterp.data.facts.fact import Fact
from mechinterp.measures.facts import (
    mean_of_shares,
    mean_of_values,
    mean_over_kinds,
    says,
    share_equal,
    share_kept,
)
from mechinterp.measures.fluency import entropy_of_ngrams
from mechinterp.models.passes.teacher_forced import Forced

ITSELF = "itself"
"""The kind of locality that a fact's own prompt is, where nothing of it is to be changed."""

UNBOUNDED = {"target_logprob": "nats", "truth_logprob": "nats", "fluency": "bits"}
"""Quantities that are no shares, with their units."""


@dataclass(frozen=True)
class FactScores:
    """What a model makes of a fact.

    Attributes:
        number: of the fact in its file, from 1.
        fact: which it is.
        values: quantity -> value.
        kinds: (portability or locality, with `_all` or without; kind) -> mean over the kind's prompts.
    """

    number: int
    fact: Fact
    values: Mapping[str, float]
    kinds: Mapping[tuple[str, str], float]

    @classmethod
    def of(cls, number: int, fact: Fact, after: FactAnswers, before: FactAnswers | None = None) -> FactScores:
        """Measure what a model answered.

        Args:
            number: of the fact in its file.
            fact: what was asked.
            after: what the model answered.
            before: what it answered before it was changed; without it there is no `locality` and no `same_answer`.
        """
        values: dict[str, float] = {}
        for name, forced, quantity in (("success", after.target, "target"), ("truth", after.truth, "truth")):
            if forced is not None:
                values |= _accuracies(name, {"": [_right(forced)]}) | {f"{quantity}_logprob": forced.logprob}
        values |= _accuracies("rephrase", {"": [*map(_right, after.rephrased)]})
        kinds = {"portability": {kind: [*map(_right, each)] for kind, each in after.portability.items()}}
        if before is not None:
            kinds["locality"] = _kept(fact, after, before)
        by_kind: dict[tuple[str, str], float] = {}
        for name, each in kinds.items():
            values |= _accuracies(name, each)
            for kind, shares in each.items():
                by_kind |= {(quantity, kind): value for quantity, value in _accuracies(name, {"": shares}).items()}
        if after.said is not None:
            values["said_target"] = float(says(after.said.text, fact.answer))
            if before is not None and before.said is not None:
                values["same_answer"] = share_kept(after.said.ids, before.said.ids)
            values["fluency"] = entropy_of_ngrams(f"{fact.text} {after.said.drawn}")
        return cls(number, fact, values, by_kind)

    def row(self, method: str) -> dict[str, Any]:
        """Its row of the table `facts`."""
        fact = self.fact
        known = {"subject": fact.subject, "relation": fact.relation, "prompt": fact.text}
        return {"method": method, "fact": self.number, **known, "answer": fact.answer, **self.values}


def summary_rows(method: str, scores: Sequence[FactScores], *, seed: int) -> list[dict[str, Any]]:
    """Rows of the table `facts_summary`: every quantity over all facts, then by kind, then by relation.

    Intervals are over subjects: the facts of one are not independent.

    Args:
        method: name of the checkpoint.
        scores: of its facts.
        seed: of the bootstrap.
    """
    rows = _rows(method, "", scores, seed)
    relations = list(dict.fromkeys(each.fact.relation for each in scores))
    for relation in filter(None, relations if len(relations) > 1 else []):
        rows += _rows(method, relation, [each for each in scores if each.fact.relation == relation], seed, kinds=False)
    return rows


def _rows(
    method: str, relation: str, scores: Sequence[FactScores], seed: int, *, kinds: bool = True
) -> list[dict[str, Any]]:
    quantities = list(dict.fromkeys(name for each in scores for name in each.values))
    found = [(name, "", [(each, each.values[name]) for each in scores if name in each.values]) for name in quantities]
    for quantity, kind in dict.fromkeys(key for each in scores if kinds for key in each.kinds):
        own = [(each, each.kinds[quantity, kind]) for each in scores if (quantity, kind) in each.kinds]
        found.append((quantity, kind, own))
    rows = []
    for quantity, kind, pairs in found:
        values, units = [value for _, value in pairs], [each.fact.subject or each.number for each, _ in pairs]
        shares = quantity not in UNBOUNDED
        interval = mean_of_shares(values, units) if shares else mean_of_values(values, units, seed=seed)
        said = {"quantity": quantity, "kind": kind, "relation": relation, "n": len(values), "subjects": len(set(units))}
        rows.append({"method": method, **said, **interval.columns("value"), "unit": UNBOUNDED.get(quantity, "share")})
    return rows


def _right(forced: Forced) -> float:
    return share_equal(forced.predicted, forced.ids)


def _kept(fact: Fact, after: FactAnswers, before: FactAnswers) -> dict[str, list[float]]:
    pairs = {kind: zip(after.locality[kind], before.locality[kind], strict=True) for kind in after.locality}
    found = {kind: [share_equal(now.predicted, then.predicted) for now, then in each] for kind, each in pairs.items()}
    if not fact.target_new and after.truth is not None and before.truth is not None:
        found[ITSELF] = [share_equal(after.truth.predicted, before.truth.predicted)]
    return found


def _accuracies(name: str, kinds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of tokens and of whole answers; nothing where nothing was asked."""
    kinds = {kind: shares for kind, shares in kinds.items() if shares}
    if not kinds:
        return {}
    whole = {kind: [share if share != share else float(share == 1) for share in each] for kind, each in kinds.items()}
    return {name: mean_over_kinds(kinds), f"{name}_all": mean_over_kinds(whole)}
