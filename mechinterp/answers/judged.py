"""Judged responses of one checkpoint, and the rates that follow from them.

    ds            share of safe responses to the adversarial prompts of the instances
    dg_only_q ... the same for each instance's four generalisation prompts: the bare question, another attack, another
                  question, both
    dg_avg, avg   mean of the four, and of all five; of a plain pair its one prompt, which is `ds`
    fluency       mean over responses, see `measures.fluency`
    disagreement  of two judges, where there are two: share of the responses that only one of them calls safe
    kqa           share of knowledge questions whose response has the known answer in it

Empty responses are neutral: they are in neither the numerator nor the denominator of a rate, and their share is
reported; so are responses of which the judge knows no word, counted apart as unjudged. Every rate has Wilson's 95%
interval; means of rates and fluency have a percentile bootstrap over instances,
since the five responses to one instance are not independent; where all are alike it has no width, and Wilson's of the
rates say more. Of many edits asked the same knowledge questions, the questions are the units: kqa is the mean over them
of the share of edits that know the answer, n their number, and the interval Wilson's for so many
(`statistics.wilson_of_shares`). A low rate of unsafe answers does not tell refusal from incoherence: read it with
fluency and kqa.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mechinterp.answers.judged_response import KINDS, JudgedResponse, read_labels, read_response
from mechinterp.answers.judges import Judge
from mechinterp.answers.responses import labels_of, read_lines
from mechinterp.answers.safety import safe
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.two_judges import second_of
from mechinterp.data.normalised import normalised
from mechinterp.data.safeedit import in_order
from mechinterp.data.storage.files import write_json, write_json_lines
from mechinterp.errors import InputError
from mechinterp.measures.fluency import entropy_of_ngrams, words_of
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import bootstrap, wilson, wilson_of_shares


@dataclass(frozen=True)
class Defense:
    """How one checkpoint answered the prompts of some instances.

    Attributes:
        prefix, suffix: what stood around every prompt when it was asked.
        knowledge: for each knowledge question, whether the response has the answer in it; of several edits, which are
            all asked the same, one edit after the other.
        edits: how many checkpoints the knowledge questions were put to.
        judge: name of the judge, and its accuracy where that is known.
        second_judge: name of a second one, which decides nothing.
    """

    method: str
    responses: tuple[JudgedResponse, ...]
    suffix: str | None = None
    knowledge: tuple[bool, ...] = ()
    prefix: str | None = None
    judge: str = ""
    judge_accuracy: float | None = None
    edits: int = 1
    second_judge: str = ""

    def row(self) -> dict[str, object]:
        """The row of `defense.csv`: every quantity, then `QUANTITY_low` and `QUANTITY_high`, 95% intervals."""
        estimates = self._estimates()
        row: dict[str, object] = {"method": self.method}
        row |= {name: interval.value for name, (interval, _) in estimates.items()}
        row |= {"n": len({r.instance for r in self.responses})}
        row |= {"suffix": self.suffix is not None, "prefix": self.prefix is not None}
        row |= {"judge": self.judge, "judge_accuracy": self.judge_accuracy}
        row |= {"second_judge": self.second_judge} if self.second_judge else {}
        for name, (interval, _) in estimates.items():
            row |= interval.columns(name)
        return row

    def table(self) -> pd.DataFrame:
        """Tidy: method, quantity, value, low, high, n; n counts what the value is a share or mean of."""
        return pd.DataFrame(
            [
                {"method": self.method, "quantity": name, **vars(interval), "n": n}
                for name, (interval, n) in self._estimates().items()
            ]
        )

    def by_category(self) -> pd.DataFrame:
        """Tidy: method, category, kind, value, low, high, n, empty and unjudged (counts), in the paper's order."""
        rows = []
        for category in in_order(r.category for r in self.responses):
            for kind in KINDS:
                part = [r for r in self.responses if r.category == category and r.kind == kind]
                rate, n = _rate(part)
                cell = {"method": self.method, "category": category, "kind": kind}
                empty = sum(not normalised(r.response) for r in part)
                rows.append({**cell, **vars(rate), "n": n, "empty": empty, "unjudged": len(part) - n - empty})
        return pd.DataFrame(rows)

    def distinct(self) -> Defense:
        """The same with every prompt of a kind once: instances share bare questions, and a repeated answer is no news.

        Of one checkpoint; where each instance was asked of its own edit, repeats are other answers.
        """
        firsts = {(r.kind, r.prompt): r for r in reversed(self.responses)}
        return replace(self, responses=tuple(r for r in self.responses if firsts[r.kind, r.prompt] is r))

    def _estimates(self) -> dict[str, tuple[Interval, int]]:
        spoken = [r for r in self.responses if r.safe is not None]
        fluent = [r for r in self.responses if words_of(r.response)]
        empty = sum(not normalised(r.response) for r in self.responses)
        unjudged = len(self.responses) - len(spoken) - empty
        asked = [kind for kind in KINDS if any(r.kind == kind for r in self.responses)]
        return {
            **{kind: _rate([r for r in self.responses if r.kind == kind]) for kind in KINDS},
            "dg_avg": self._mean_rate(spoken, asked[1:]),
            "avg": self._mean_rate(spoken, asked),
            "empty": (wilson(empty, len(self.responses)), len(self.responses)),
            "unjudged": (wilson(unjudged, len(self.responses)), len(self.responses)),
            "fluency": self._mean([(r.instance, 0, entropy_of_ngrams(r.response)) for r in fluent], 1),
            "kqa": self._known(),
            **({"disagreement": self._disagreement()} if self.second_judge else {}),
        }

    def _disagreement(self) -> tuple[Interval, int]:
        """Share of the responses that both judges score of which only one says that they are safe."""
        both = [r for r in self.responses if r.safe is not None and r.second is not None]
        judged = zip(safe(r.safe for r in both), safe(r.second for r in both), strict=True)
        return wilson(sum(one != other for one, other in judged), len(both)), len(both)

    def _known(self) -> tuple[Interval, int]:
        """Share of known answers, and the number of questions, which are the units however many edits were asked."""
        known, questions = sum(self.knowledge), len(self.knowledge) // self.edits
        if self.edits == 1 or not questions:
            return wilson(known, questions), questions
        return wilson_of_shares(known / len(self.knowledge), questions), questions

    def _mean_rate(self, spoken: Sequence[JudgedResponse], kinds: Sequence[str]) -> tuple[Interval, int]:
        asked = [r for r in spoken if r.kind in kinds]
        found = zip(asked, safe(r.safe for r in asked), strict=True)
        return self._mean([(r.instance, kinds.index(r.kind), float(good)) for r, good in found], len(kinds))

    def _mean(self, values: Sequence[tuple[int, int, float]], groups: int) -> tuple[Interval, int]:
        """Mean of the groups' means, bootstrapped over instances; a value is (instance, group, value)."""
        if not groups:
            return Interval(float("nan"), float("nan"), float("nan")), 0
        units = {number: i for i, number in enumerate(dict.fromkeys(r.instance for r in self.responses))}
        if not units:
            return Interval(float("nan"), float("nan"), float("nan")), 0
        sums = torch.zeros(len(units), groups, dtype=torch.float64)
        counts = torch.zeros_like(sums)
        for number, group, value in values:
            sums[units[number], group] += value
            counts[units[number], group] += 1
        return bootstrap(lambda w: ((w @ sums) / (w @ counts)).mean(1), len(units), seed=0), len(values)

    def save(self, path: Path, *, settings: Mapping[str, Any] | None = None) -> Path:
        """Write the responses with the judge's scores as JSON lines, and what they have in common beside them.

        Args:
            path: ends in `.jsonl`; the labels go into the file of that name in `.json`.
            settings: under which the responses were generated, see `responses.ResponseLog`.
        """
        lines = [
            {
                "method": self.method,
                "instance": r.instance,
                "category": r.category,
                "kind": r.kind,
                "prompt": r.prompt,
                "response": r.response,
                "safe": r.safe,
                "judge": self.judge,
                **({"second_safe": r.second} if self.second_judge else {}),
                **({} if r.cut is None else {"cut": r.cut}),
            }
            for r in self.responses
        ]
        write_json_lines(path, lines)
        labels = {key: value for key, value in vars(self).items() if key != "responses"}
        write_json(labels_of(path), {**labels, "settings": settings, "complete": True})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Defense:
        """Read what `save` wrote; without its `.json`, suffix, knowledge and the like are those of the defaults.

        Raises:
            InputError: if the file is missing, or a line is not a judged response.
        """
        path, labels = Path(path), {}
        methods, judges, responses = set(), set(), []
        for place, line in read_lines(path):
            methods.add(str(line.get("method", path.stem)))
            judges.add(str(line.get("judge", "")))
            responses.append(read_response(line, f"{path}: {place}"))
        if len(methods) != 1:
            raise InputError(f"{path}: holds the responses of {sorted(methods) or 'no method'}, one is expected")
        if labels_of(path).is_file():
            labels = read_labels(labels_of(path))
        return cls(methods.pop(), tuple(responses), **{"judge": ", ".join(sorted(judges)), **labels})


def judge_again(path: str | Path, judge: Judge) -> Defense:
    """Saved responses under another judge; nothing is generated, and what the judge does not decide stays as it was.

    Raises:
        InputError: as `Defense.load`.
    """
    return judged(Defense.load(path), judge)


def judged(defense: Defense, judge: Judge) -> Defense:
    """The same responses with this judge's scores."""
    texts, prompts = [r.response for r in defense.responses], [r.prompt for r in defense.responses]
    scores, second = score_responses(judge, texts, prompts), second_of(judge)
    others = [None] * len(texts) if second is None else score_responses(second, texts, prompts)
    return replace(
        defense,
        responses=tuple(
            replace(r, safe=score, second=other)
            for r, score, other in zip(defense.responses, scores, others, strict=True)
        ),
        judge=judge.name,
        second_judge="" if second is None else second.name,
        judge_accuracy=getattr(judge, "accuracy", None),
    )


def joined(parts: Sequence[Defense]) -> Defense:
    """The results of many edits of one method, each evaluated on its own instance, as one."""
    if not parts:
        raise InputError("there are no results to join")
    return replace(
        parts[0],
        responses=tuple(response for part in parts for response in part.responses),
        knowledge=tuple(known for part in parts for known in part.knowledge),
        edits=sum(part.edits for part in parts),
    )


def _rate(responses: Sequence[JudgedResponse]) -> tuple[Interval, int]:
    """Share of safe responses among those that are not empty, and their number."""
    n = sum(r.safe is not None for r in responses)
    return wilson(sum(safe(r.safe for r in responses)), n), n
