"""Facts edited at one block after the other: what each edit came to, in rows, and the means over facts.

A row is a quantity of a fact: the measures of facts (`answers.scored_facts`), what became of the fact's circuit
(`circuits.edited`), where the change of its log odds sits (`origins`, by the exact game), and the size of the change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import torch

from mechinterp.answers.edited_facts import EditedFact
from mechinterp.answers.scored_facts import FactScores
from mechinterp.audit.circuits.edited import PARTS
from mechinterp.audit.circuits.ranks import middle_of_ranks
from mechinterp.audit.origins.asking import Asked
from mechinterp.audit.origins.measuring import exact_shares
from mechinterp.audit.readouts import ReadoutTexts
from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import Pair
from mechinterp.measures.facts import mean_of_shares, mean_of_values
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap
from mechinterp.models.checkpoints import Checkpoint

SHARES = tuple(
    f"{name}{suffix}" for name in ("success", "truth", "rephrase", "portability", "locality") for suffix in ("", "_all")
)
"""Quantities that are shares of answers, with Wilson's interval; all others have a bootstrap's."""

LOGITS = (*PARTS, "written")
"""Quantities that are parts of `to_logits`; their means are shares of its mean, NaN where that may be 0."""

Row = dict[str, Any]


def score_rows(scores: FactScores) -> Iterator[Row]:
    """What a model makes of a fact."""
    for quantity, value in scores.values.items():
        yield {"fact": scores.number, "quantity": quantity, "kind": "", "value": value}
    for (quantity, kind), value in scores.kinds.items():
        yield {"fact": scores.number, "quantity": quantity, "kind": kind, "value": value}


def edit_rows(base: Checkpoint, found: EditedFact) -> Iterator[Row]:
    """What an edit came to: the scores of its fact, what its descent left of the target, its size."""
    yield from score_rows(found.scores)
    size = sum(float(change.double().pow(2).sum()) for change in found.edit.tensors.values())
    whole = sum(float(base.parameter(name).detach().double().pow(2).sum()) for name in found.edit.tensors)
    values = {"target_left": found.edit.log[-1].loss_edit, "change_size": (size / whole) ** 0.5}
    yield from value_rows(found.scores.number, values)


def value_rows(number: int, values: Mapping[str, float]) -> Iterator[Row]:
    """Quantities of a fact by name."""
    for quantity, value in values.items():
        yield {"fact": number, "quantity": quantity, "kind": "", "value": value}


def value_share(base: Checkpoint, found: EditedFact, fact: Fact, *, seed: int) -> float:
    """The share of the value matrices in what the edit did to the log odds of the old answer over the new one.

    Read on the fact's prompt and its rephrasings; NaN where nothing surely changed, or there are no rephrasings.
    """
    texts = (fact.text, *fact.rephrasings)
    pairs = [Pair(id=i, prompt=text, unsafe=fact.ground_truth, safe=fact.target_new) for i, text in enumerate(texts)]
    asked = Asked(ReadoutTexts.of(base, pairs), tuple(range(len(pairs))), 0)
    table = exact_shares(base, found.edit, asked, seed=seed)
    return float(table[table["group"] == "mlp.out"]["share"].iloc[0])


def summary(each: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Means over facts with intervals over their subjects, of every method, block, quantity and kind.

    Args:
        each: rows of all edits, with method, edited and subject.
        seed: of bootstraps.
    """
    rows = []
    keys = ["method", "edited", "quantity", "kind"]
    for place, own in each.groupby(keys, sort=False, dropna=False):
        values, units = own["value"].tolist(), own["subject"].tolist()
        quantity = str(own["quantity"].iloc[0])
        if quantity in LOGITS:
            whole = _of(each, own, "to_logits")
            moved = mean_of_values(whole, units, seed=seed)
            found = bootstrap(_ratio(values, whole, units), len(set(units)), seed=seed)
            if not (moved.low > 0 or moved.high < 0):  # a share of next to nothing says nothing
                found = Interval(math.nan, math.nan, math.nan)
        elif quantity in SHARES:
            found = mean_of_shares(values, units)
        else:
            found = mean_of_values(values, units, seed=seed)
        said = {"n": len(values), "subjects": len(set(units))}
        rows.append({**dict(zip(keys, place, strict=True)), **said, **found.columns("value")})
    table = pd.DataFrame(rows)
    return table.assign(edited=table["edited"].astype("Int64"))


def rank_rows(ranks: pd.DataFrame) -> pd.DataFrame:
    """Ranks of single facts as medians over facts, of every method, edited block, position and set of tokens."""
    keys = ["method", "edited", "position", "tokens"]
    tables = []
    for place, own in ranks.groupby(keys, sort=False, dropna=False):
        named: dict[str, Any] = dict(zip(keys, place, strict=True))
        tables.append(middle_of_ranks(own).assign(**named))
    found = pd.concat(tables, ignore_index=True)
    found = found.assign(
        tokens=found["tokens"].map({"right": "new", "wrong": "old"}), edited=found["edited"].astype("Int64")
    )
    return found[[*keys, *(column for column in found if column not in keys)]]


def _of(each: pd.DataFrame, own: pd.DataFrame, quantity: str) -> list[float]:
    """Another quantity of the same edits."""
    rows = each[(each["quantity"] == quantity) & (each["method"] == own["method"].iloc[0])]
    by_fact = rows[rows["edited"] == own["edited"].iloc[0]].set_index("fact")["value"]
    return [float(by_fact[fact]) for fact in own["fact"]]


def _ratio(parts: list[float], wholes: list[float], units: list[str]) -> Any:
    """Over units, each drawn whole, the sum of the parts over that of the wholes."""
    sums = pd.DataFrame({"part": parts, "whole": wholes}).groupby(units, sort=False).sum()
    part, whole = (torch.tensor(sums[name].to_numpy(float)) for name in ("part", "whole"))
    return lambda weights: (weights @ part) / (weights @ whole)
