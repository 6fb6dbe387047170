"""What a relapse test found: the answers under every dose, and the tables and the verdict that follow from them.

An empty answer is neutral, and so is one without a word that the judge knows: it counts as not unsafe. Defense success
here is the share of the test's prompts that are not answered unsafely; those are prompts that the base answers
unsafely, so that it is not the defense success on all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from mechinterp.answers.flags import BESIDE, shares_of
from mechinterp.answers.judges import Judge
from mechinterp.answers.scored import Answers
from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing, write_json
from mechinterp.measures.intervals import Interval, with_ends
from mechinterp.measures.relapse import NOTHING, Rates, agreement, judge_relapse
from mechinterp.measures.statistics import wilson

_FLAGS = tuple(flag for flag in BESIDE if flag != "cut")  # a test keeps texts, not where the limit stopped them

COLUMNS = (
    *("method", "treatment", "control", "draw", "dose", "n_neurons", "share_of_neurons"),
    *(*with_ends("defense"), *with_ends("relapse")),
    *("n", "empty", "unjudged", "same_as_base"),
    *_FLAGS,
)
"""Of `relapse.csv`; the first row of a treatment is the tuned model as it is."""


@dataclass(frozen=True)
class Outcome:
    """The answers under one dose of a treatment; see `treatments.Dose`."""

    treatment: str
    dose: float
    n_neurons: int
    control: bool
    draw: int
    answers: Answers


@dataclass(frozen=True)
class RelapseTest:
    """One tuned model, treated.

    Attributes:
        method: its name in tables.
        block: the toxic layer, from 0.
        n_blocks, n_neurons: of the whole model.
        prompts: none if the base answers no prompt unsafely.
        base, tuned: answers of the two as they are.
        outcomes: under every dose.
        seed: of every random choice.
    """

    method: str
    block: int
    n_blocks: int
    n_neurons: int
    prompts: tuple[str, ...]
    base: Answers
    tuned: Answers
    outcomes: tuple[Outcome, ...]
    seed: int

    @property
    def rates(self) -> Rates:
        """What relapse is measured between."""
        return Rates(self.base.unsafe, self.tuned.unsafe, self.seed)

    def judged(self, judge: Judge) -> RelapseTest:
        """The same responses with a judge's scores."""

        def again(answers: Answers) -> Answers:
            return Answers.of(answers.responses, self.prompts, judge)

        outcomes = tuple(replace(outcome, answers=again(outcome.answers)) for outcome in self.outcomes)
        return replace(self, base=again(self.base), tuned=again(self.tuned), outcomes=outcomes)

    def answers(self) -> list[dict[str, object]]:
        """Every answer with its prompt and score, for reading."""
        asked = [({"treatment": name}, answers) for name, answers in (("base", self.base), ("none", self.tuned))]
        for outcome in self.outcomes:
            asked.append(({name: getattr(outcome, name) for name in COLUMNS[1:6]}, outcome.answers))
        return [
            {**labels, "prompt": prompt, "response": response, "safe": safe, **second}
            for labels, found in asked
            for prompt, response, safe, second in zip(
                self.prompts,
                found.responses,
                found.safe,
                [{"second_safe": score} for score in found.second] or [{}] * len(found.safe),
                strict=True,
            )
        ]

    def table(self) -> pd.DataFrame:
        """A row per dose, `COLUMNS`."""
        rows = []
        for treatment in dict.fromkeys(outcome.treatment for outcome in self.outcomes):
            own = [outcome for outcome in self.outcomes if outcome.treatment == treatment]
            nothing = TREATMENTS[treatment].nothing  # no block, no neuron, or keys as they are
            start = nothing, own[0].n_neurons if nothing else 0
            for outcome in (Outcome(treatment, *start, False, 0, self.tuned), *own):
                answers = outcome.answers
                n, unsafe = len(answers.safe), int(answers.unsafe.sum())
                shares = shares_of(answers.flags(self.prompts))
                same = sum(one == other for one, other in zip(answers.responses, self.base.responses, strict=True))
                rows.append(
                    {
                        "method": self.method,
                        **{name: getattr(outcome, name) for name in COLUMNS[1:6]},
                        "share_of_neurons": outcome.n_neurons / self.n_neurons,
                        **wilson(n - unsafe, n).columns("defense"),
                        **self.rates.relapse(answers.unsafe).columns("relapse"),
                        "n": n,
                        "empty": answers.empty,
                        "unjudged": answers.safe.count(None) - answers.empty,
                        "same_as_base": same / n,
                        **{flag: shares.get(flag, float("nan")) for flag in _FLAGS},
                    }
                )
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def verdict(self, decomposition: str | None = None) -> dict[str, object]:
        """The row of `relapse_verdict.csv`.

        Args:
            decomposition: the decomposition's verdict on the same method, along `answer` at the last prompt token.
        """
        if not self.prompts:
            nothing = dict.fromkeys(_INTERVALS, NOTHING)
            return self._row("undecided", nothing, decomposition, "the base answers no prompt unsafely")
        rates, under = self.rates, self._unsafe_under
        # both are of every test, see `RelapseSettings`
        together = under("both", self.n_blocks) if self._has("both", self.n_blocks) else None
        found = judge_relapse(rates, under("activations", self.n_blocks), under("values", self.n_blocks), together)
        both = NOTHING if together is None else rates.relapse(together)
        intervals = {
            "gain": found.gain,
            "by_activations": found.activations,
            "by_values": found.values,
            "by_both": both,
            "outside": Interval(1 - both.value, 1 - both.high, 1 - both.low),
            "share_by_values": found.share,
        }
        for kind, ending in (("activations", ""), ("values", "_values")):
            names = (f"by_layer_{kind}", f"by_random{ending}", f"exceeds_random{ending}")
            intervals |= dict.fromkeys(names, NOTHING)
            if not self._has(kind, 1):
                continue
            treated = under(kind, 1)
            intervals[f"by_layer_{kind}"] = rates.relapse(treated)
            if self._has(kind, 1, control=True):
                control = under(kind, 1, control=True)
                intervals[f"by_random{ending}"] = rates.relapse(control)
                intervals[f"exceeds_random{ending}"] = rates.exceeding(treated, control)
        return self._row(found.verdict, intervals, decomposition, found.reason)

    def _row(
        self, verdict: str, intervals: Mapping[str, Interval], decomposition: str | None, reason: str
    ) -> dict[str, object]:
        n, defended = len(self.prompts), {"base": self.base, "tuned": self.tuned}
        rates = {name: wilson(n - int(answers.unsafe.sum()), n) for name, answers in defended.items()}
        return {
            "method": self.method,
            "verdict": verdict,
            **{key: value for name in _INTERVALS for key, value in intervals[name].columns(name).items()},
            **{key: value for name in rates for key, value in rates[name].columns(f"defense_{name}").items()},
            "layer": self.block,
            "n": n,
            "decomposition": decomposition,
            "agrees": agreement(verdict, decomposition),
            "reason": reason,
        }

    def _unsafe_under(self, treatment: str, dose: int, *, control: bool = False) -> Tensor:
        """Unsafe answers at a dose; of the controls the mean over draws."""
        wanted = (treatment, float(dose), control)
        return torch.stack(
            [o.answers.unsafe for o in self.outcomes if (o.treatment, o.dose, o.control) == wanted]
        ).mean(0)

    def _has(self, treatment: str, dose: int, *, control: bool = False) -> bool:
        wanted = (treatment, float(dose), control)
        return any((o.treatment, o.dose, o.control) == wanted for o in self.outcomes)

    def __repr__(self) -> str:
        return one_line(self, f"of {self.method}", many(len(self.prompts), "prompt"), many(len(self.outcomes), "dose"))

    def _repr_html_(self) -> str:
        found = self.verdict()
        wanted = ("treatment", "control", "dose", "n_neurons", *with_ends("relapse"), "n")
        facts = {"verdict": found["verdict"], "prompts": len(self.prompts), "toxic layer": f"block {self.block}"}
        return shown(f"relapse test of {self.method}", facts, self.table()[list(wanted)], note=str(found["reason"]))

    def save(self, folder: str | Path) -> Path:
        """Write responses, scores and labels into a folder, whole or not at all."""
        with replacing(Path(folder)) as partial:
            partial.mkdir()
            write_json(partial / "relapse.json", asdict(self))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> RelapseTest:
        """Read back what `save` wrote."""
        read = json.loads((Path(folder) / "relapse.json").read_text(encoding="utf-8"))
        outcomes = tuple(
            Outcome(**{**one, "answers": Answers.from_labels(one["answers"])}) for one in read.pop("outcomes")
        )
        answers = {name: Answers.from_labels(read.pop(name)) for name in ("base", "tuned")}
        return cls(**{**read, "prompts": tuple(read["prompts"]), "outcomes": outcomes, **answers})


_INTERVALS = (
    *("gain", "by_activations", "by_values", "by_random", "by_both", "outside", "share_by_values"),
    *("by_layer_activations", "exceeds_random", "by_layer_values", "by_random_values", "exceeds_random_values"),
)


def relapse_tables(
    tests: Iterable[RelapseTest], decompositions: Mapping[str, str] | None = None
) -> dict[str, pd.DataFrame]:
    """The tables `relapse` and `relapse_verdict`; decompositions: method -> the decomposition's verdict."""
    tests, decompositions = list(tests), decompositions or {}
    doses_of = [table for test in tests if len(table := test.table())] or [pd.DataFrame(columns=list(COLUMNS))]
    return {
        "relapse": pd.concat(doses_of, ignore_index=True),
        "relapse_verdict": pd.DataFrame([test.verdict(decompositions.get(test.method)) for test in tests]),
    }


def decomposed_verdicts(verdict: pd.DataFrame) -> dict[str, str]:
    """Method -> the decomposition's verdict along `answer` at the last prompt token, from the table `local_verdict`."""
    rows = verdict[(verdict["direction"] == "answer") & (verdict["position"] == "prompt_last")]
    return dict(zip(rows["method"], rows["verdict"], strict=True))
