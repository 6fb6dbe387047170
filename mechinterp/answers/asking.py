"""What is asked of a checkpoint or of its edits, and the answers, kept in a file as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mechinterp.answers.judged import Defense, judged
from mechinterp.answers.judged_response import KINDS, JudgedResponse
from mechinterp.answers.judges import Judge
from mechinterp.answers.responses import ResponseLog
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.measures.fluency import knows
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.side_by_side import generate_each
from mechinterp.models.passes.watching import Progress

ANSWERED_BY = ("mechinterp.models.passes.generation", "mechinterp.models.passes.side_by_side")
"""The code that answers depend on; they are judged anew each time."""


def prompts_by_kind(instance: AnyPair) -> dict[str, str]:
    """The prompts of an instance, by kind: the five of a SafeEdit instance, the one of a plain pair."""
    if not isinstance(instance, SafeEditInstance):
        return {"ds": instance.prompt}
    test = instance.generalization_test
    assert test is not None  # check_test_instances
    return {
        "ds": instance.prompt,
        "dg_only_q": test.only_question,
        "dg_other_a": test.other_attack,
        "dg_other_q": test.other_question,
        "dg_other_aq": test.other_question_and_attack,
    }


@dataclass(frozen=True)
class Questions:
    """How to ask, and who judges."""

    judge: Judge
    max_new_tokens: int
    suffix: str | None
    prefix: str | None
    knowledge: tuple[tuple[str, str], ...]
    truncate: bool
    method: str
    kinds: tuple[str, ...] = KINDS

    def prompts(self, instance: AnyPair) -> dict[str, str]:
        """The prompts of an instance that are asked, by kind."""
        return {kind: prompt for kind, prompt in prompts_by_kind(instance).items() if kind in self.kinds}

    def called(self, instances: Sequence[AnyPair]) -> dict[str, str]:
        """What every prompt is called in errors: by the first instance that asks it."""
        names = {question: f"knowledge question {number}" for number, (question, _) in enumerate(self.knowledge, 1)}
        for instance in reversed(instances):
            for kind, prompt in reversed(self.prompts(instance).items()):
                names[prompt] = f"instance {instance.id}: the prompt {kind}"
        return names

    def settings(self, checkpoint: Checkpoint, instances: Sequence[AnyPair]) -> dict[str, object]:
        """What the responses depend on besides the weights."""
        return {
            "method": self.method,
            "tokenizer": checkpoint.tokenizer_fingerprint,
            **({} if checkpoint.chat is None else {"chat format": checkpoint.chat.described}),
            "end_tokens": sorted(end_tokens(checkpoint)),
            "prompts": digest([[i.id, i.category, *self.prompts(i).values()] for i in instances]),
            "knowledge": digest(self.knowledge),
            "prefix": self.prefix,
            "suffix": self.suffix,
            "max_new_tokens": self.max_new_tokens,
            "truncate": self.truncate,
            "code": code_of(*ANSWERED_BY),
        }

    def put(
        self,
        checkpoint: Checkpoint,
        instances: Sequence[AnyPair],
        *,
        log: ResponseLog | None = None,
        progress: Progress | None = None,
    ) -> Defense:
        """Ask every different prompt once, and judge what comes."""
        asked = [(instance, kind, prompt) for instance in instances for kind, prompt in self.prompts(instance).items()]
        called = self.called(instances)
        unique = list(dict.fromkeys([prompt for *_, prompt in asked] + [question for question, _ in self.knowledge]))
        ask = partial(
            generate,
            checkpoint,
            unique,
            max_new_tokens=self.max_new_tokens,
            suffix=self.suffix,
            prefix=self.prefix,
            truncate=self.truncate,
            called=[called[prompt] for prompt in unique],
            progress=progress,
        )
        if log is None:
            answers = dict(zip(unique, ask(), strict=True))
        else:
            had = log.of(None)
            known = {i: had[prompt] for i, prompt in enumerate(unique) if prompt in had}
            answers = dict(zip(unique, ask(known=known, see=partial(_keep, log, unique)), strict=True))
        return self.judged(checkpoint, instances, answers)

    def put_each(
        self,
        checkpoint: Checkpoint,
        edits: Mapping[int, Path],
        instances: Sequence[AnyPair],
        log: ResponseLog | None,
    ) -> list[Defense]:
        """Ask every edit the prompts of its own instance, all of them in one batch, unless that has been done.

        Several processes do this for edits of their own; nothing is joined here.
        """
        asked = {
            i.id: list(dict.fromkeys([*self.prompts(i).values(), *(question for question, _ in self.knowledge)]))
            for i in instances
        }
        answers = {number: log.of(number) if log is not None else {} for number in asked}
        if any(prompt not in answers[number] for number, prompts in asked.items() for prompt in prompts):
            found = generate_each(
                checkpoint,
                [WeightDelta.load(edits[number]) for number in asked],
                list(asked.values()),
                max_new_tokens=self.max_new_tokens,
                suffix=self.suffix,
                prefix=self.prefix,
                truncate=self.truncate,
                called=[[named[prompt] for prompt in asked[i.id]] for i in instances for named in [self.called([i])]],
            )
            for (number, prompts), own in zip(asked.items(), found, strict=True):
                answers[number] = dict(zip(prompts, own, strict=True))
                if log is not None:
                    log.add(number, answers[number])
        return [self.judged(checkpoint, [instance], answers[instance.id]) for instance in instances]

    def judged(self, checkpoint: Checkpoint, instances: Sequence[AnyPair], answers: Mapping[str, str]) -> Defense:
        """The answers, by prompt, with the judge's scores."""
        cut = self._cut(checkpoint, answers)
        asked = [(instance, kind, prompt) for instance in instances for kind, prompt in self.prompts(instance).items()]
        return judged(
            Defense(
                method=self.method,
                responses=tuple(
                    JudgedResponse(instance.id, kind, prompt, answers[prompt], None, instance.category, cut=cut[prompt])
                    for instance, kind, prompt in asked
                ),
                suffix=self.suffix,
                knowledge=tuple(knows(answers[question], answer) for question, answer in self.knowledge),
                prefix=self.prefix,
            ),
            self.judge,
        )

    def _cut(self, checkpoint: Checkpoint, answers: Mapping[str, str]) -> dict[str, bool]:
        """Whether the limit of tokens stopped each answer; one that ends right before it is counted too."""
        texts = list(answers.values())
        ids = checkpoint.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return {prompt: len(new) >= self.max_new_tokens - 1 for prompt, new in zip(answers, ids, strict=True)}


def _keep(log: ResponseLog, prompts: Sequence[str], new: Mapping[int, str]) -> None:
    log.add(None, {prompts[i]: response for i, response in new.items()})


def saved(defense: Defense, log: ResponseLog) -> Defense:
    """Write the whole file, then drop the parts it was made of."""
    if processes.is_main():
        defense.save(log.path, settings=log.settings)
    log.close()
    return defense
