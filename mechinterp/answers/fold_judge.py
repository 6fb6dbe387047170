"""A judge made from the very data whose answers it judges, that has not seen what it judges.

The questions are dealt into folds. An answer to a prompt is judged by a classifier trained without the folds of all
questions in that prompt: on none of the responses to them, and on no text that is also one of theirs. The accuracy is
that on the data's own responses, each judged by the classifier of its own fold.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from mechinterp.answers.judges import Scores, probabilities, text_classifier
from mechinterp.data.counting import many
from mechinterp.data.normalised import normalised
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.showing import one_line
from mechinterp.data.storage.provenance import digest
from mechinterp.errors import InputError
from mechinterp.measures.splitting import Distinct, folds_of

FOLDS = (5, 20)
"""How many folds; more where without a fifth of the questions too few texts are left."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldJudge:
    """Logistic regression on words and word pairs, trained anew without whatever the answers to be judged belong to.

    Attributes:
        texts: distinct responses.
        labels: whether each is safe.
        questions: those to which each is a response, normalised.
        folds: of every question.
        prompts: normalised, each with the questions that it is known to ask.
        accuracy, auroc, f1: on `texts`, each unseen by its judge.
        n_train, n_test: distinct responses in all, and those judged.
        fingerprint: of everything it is made from.
    """

    texts: tuple[str, ...]
    labels: tuple[bool, ...]
    questions: tuple[frozenset[str], ...]
    folds: Mapping[str, int]
    prompts: Mapping[str, frozenset[str]]
    fingerprint: str
    accuracy: float = float("nan")
    auroc: float = float("nan")
    f1: float = float("nan")
    n_test: int = 0
    name: str = "embedded"
    _trained: dict[frozenset[int], Pipeline | None] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return one_line(
            self, self.name, many(self.n_train, "response"), f"accuracy {self.accuracy:.3f} on {self.n_test}"
        )

    @property
    def n_train(self) -> int:
        """Distinct responses."""
        return len(self.texts)

    @classmethod
    def of_instances(cls, instances: Sequence[AnyPair], *, seed: int) -> FoldJudge:
        """Of the safe and unsafe responses of instances.

        Raises:
            InputError: as `fit`.
        """
        asked: list[tuple[str, str]] = []
        for i in instances:
            test = i.generalization_test if isinstance(i, SafeEditInstance) else None
            own = [] if test is None else list(test.model_dump().values())
            asked += [(prompt, i.question) for prompt in (i.question, i.prompt, *own)]
        return cls.fit(
            [i.safe for i in instances] + [i.unsafe for i in instances],
            [True] * len(instances) + [False] * len(instances),
            [i.question for i in instances] * 2,
            asked=asked,
            seed=seed,
        )

    @classmethod
    def fit(
        cls,
        responses: Sequence[str],
        safe: Sequence[bool],
        questions: Sequence[str],
        *,
        asked: Sequence[tuple[str, str]] = (),
        seed: int,
    ) -> FoldJudge:
        """Deal the questions into folds, and judge every response by a classifier that has not seen it.

        Args:
            responses: texts.
            safe: their labels.
            questions: to which each is a response.
            asked: prompts with the question that each belongs to.
            seed: of the folds.

        Raises:
            InputError: if there are too few questions, or too few distinct responses of a kind, to leave any out.
        """
        distinct = Distinct.of(responses, safe)
        distinct.warn_of_contradictions(_logger, f"{many(len(responses), 'response')} that the judge is made from")
        answered: dict[str, set[str]] = {}
        for response, question in zip(responses, questions, strict=True):
            answered.setdefault(normalised(response), set()).add(normalised(question))
        prompts: dict[str, set[str]] = {}
        for prompt, question in asked:
            prompts.setdefault(normalised(prompt), set()).add(normalised(question))
        texts = tuple(responses[row] for row in distinct.rows)
        owned: dict[str, Any] = {
            "questions": tuple(frozenset(answered[normalised(text)]) for text in texts),
            "prompts": {prompt: frozenset(found) for prompt, found in prompts.items()},
            "fingerprint": digest([list(responses), list(map(bool, safe)), list(questions), list(asked), seed]),
        }
        names = list(dict.fromkeys(map(normalised, questions)))
        for n in FOLDS:
            judge = cls(texts, distinct.labels, folds=folds_of(names, min(n, len(names)), seed), **owned)
            if all(judge._without(frozenset({fold})) is not None for fold in set(judge.folds.values())):
                return judge._scored()
        kinds = sum(distinct.labels), len(texts) - sum(distinct.labels)
        raise InputError(
            "no judge can be made of this data that has not seen what it judges: of "
            f"{many(len(names), 'question')} with "
            f"{kinds[0]} distinct safe and {kinds[1]} unsafe responses none can be left out; give a sequence "
            "classifier as `judge`, or data with more questions and other responses to them"
        )

    def __call__(self, responses: Sequence[str], prompts: Sequence[str] | None = None) -> np.ndarray:
        """Probability of safe, nan where a response has no word that was seen in training.

        Args:
            responses: texts.
            prompts: what each answers: without it there is no knowing which judge has not seen it.
        """
        if prompts is None:
            raise ValueError("this judge must know which prompts the responses answer: give `prompts`")
        found = np.full(len(responses), np.nan)
        left_out: dict[str, frozenset[int]] = {prompt: self._left_out(prompt) for prompt in dict.fromkeys(prompts)}
        for folds in dict.fromkeys(left_out.values()):
            rows = [row for row, prompt in enumerate(prompts) if left_out[prompt] == folds]
            judge = self._without(folds)
            assert judge is not None  # _left_out
            found[rows] = probabilities(judge, [responses[row] for row in rows])
        return found

    def _left_out(self, prompt: str) -> frozenset[int]:
        """The folds of the questions in a prompt."""
        text = normalised(prompt)
        known = self.prompts.get(text, frozenset())
        within = {question for question in self.folds if question in text}
        # where the prompt of an instance names so many other questions that nothing is left, its own must do
        for questions in (known | within, known or within, frozenset[str]()):
            folds = frozenset(self.folds[question] for question in questions if question in self.folds)
            if self._without(folds) is not None:
                return folds
        raise AssertionError("the whole of the data trains a judge")

    def _without(self, folds: Collection[int]) -> Pipeline | None:
        """A classifier trained without some folds; None if too little is left."""
        key = frozenset(folds)
        if key not in self._trained:
            rows = [
                row
                for row, owners in enumerate(self.questions)
                if not any(self.folds[question] in key for question in owners)
            ]
            labels = [self.labels[row] for row in rows]
            self._trained[key] = text_classifier([self.texts[row] for row in rows], labels)
        return self._trained[key]

    def _scored(self) -> FoldJudge:
        """With its accuracy on its own texts, each judged without the folds of its questions."""
        found = np.full(len(self.texts), np.nan)
        for fold in sorted(set(self.folds.values())):
            judge = self._without(frozenset({fold}))
            assert judge is not None  # fit
            rows = [r for r, owners in enumerate(self.questions) if self.folds[min(owners)] == fold]
            found[rows] = probabilities(judge, [self.texts[row] for row in rows])
        scores = Scores.of(np.array(self.labels), found)
        return replace(self, accuracy=scores.accuracy, auroc=scores.auroc, f1=scores.f1, n_test=scores.n)
