"""Defense success and its generalisation (Wang et al. 2.3): a checkpoint, or many edits of one, answers and is judged.

What is counted, and what the numbers do not show: `judged`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from mechinterp.answers.judged import (
    KINDS,
    Defense,
    JudgedResponse,
    joined,
    judge_again,
    judged,
    score_responses,
)
from mechinterp.answers.judges import Judge
from mechinterp.answers.responses import ResponseLog
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.errors import InputError
from mechinterp.measures.fluency import fluency, knows
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta, edit_folders
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.side_by_side import changed_parameters, generate_each
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.tokenizer import tokenizer_fingerprint
from mechinterp.models.text.tokens import wrapped

TOKENS = 16384  # padded tokens in a batch that several edits answer
MEMORY = 2**30  # bytes of edited weights in it

ANSWERED_BY = ("mechinterp.models.passes.generation", "mechinterp.models.passes.side_by_side")
"""The code that answers depend on; they are judged anew each time."""

__all__ = [
    "KINDS",
    "Defense",
    "JudgedResponse",
    "check_test_instances",
    "defend",
    "defend_edits",
    "find_edits",
    "fluency",
    "joined",
    "judge_again",
    "judged",
    "knows",
    "score_responses",
]


def defend(
    checkpoint: Checkpoint,
    instances: Sequence[SafeEditInstance],
    judge: Judge,
    *,
    max_new_tokens: int,
    method: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    knowledge: Sequence[tuple[str, str]] = (),
    truncate: bool = False,
    responses: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    progress: Progress | None = None,
) -> Defense:
    """Let a checkpoint answer the five prompts of every instance, and judge the responses.

    Args:
        checkpoint: the model; left as it was.
        instances: with generalisation prompts.
        judge: see `judges`.
        max_new_tokens: longest response.
        method: label in the table; by default the checkpoint's name.
        suffix: system prompt appended to every query (the paper evaluates edited models with it, others without).
        prefix: system prompt put before every query (Self-Reminder has both).
        knowledge: (question, answer) pairs, asked in the same way.
        truncate: cut prompts that leave no room for the response from the left instead of raising.
        responses: file in `.jsonl` that the responses are appended to as they come, and in which they stand judged at
            the end; a run that was killed goes on where it was, see `responses.ResponseLog`.
        kinds: which of the five prompts, from `KINDS`.
        progress: called with (prompts answered, prompts in all).

    Raises:
        InputError: for instances without generalisation prompts (a training file), or an unknown kind.
    """
    check_test_instances(instances)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"unknown kind of prompt {unknown[0]!r}; known are {', '.join(KINDS)}")
    label = method or checkpoint.name
    ask = _Questions(judge, max_new_tokens, suffix, prefix, tuple(knowledge), truncate, label, tuple(kinds))
    if responses is None:
        return ask.put(checkpoint, instances, progress=progress)
    log = ResponseLog.open(responses, {**ask.settings(checkpoint, instances), "weights": checkpoint.fingerprint})
    if log.complete:
        return _saved(judge_again(log.path, judge), log)
    return _saved(ask.put(checkpoint, instances, log=log, progress=progress), log)


def defend_edits(
    checkpoint: Checkpoint,
    edits: Mapping[int, Path],
    instances: Sequence[SafeEditInstance],
    judge: Judge,
    *,
    max_new_tokens: int,
    method: str = "edits",
    suffix: str | None = None,
    prefix: str | None = None,
    knowledge: Sequence[tuple[str, str]] = (),
    truncate: bool = False,
    responses: str | Path | None = None,
    together: int | None = None,
    progress: Progress | None = None,
) -> Defense:
    """Evaluate many edits of a checkpoint, each on its own instance's prompts, all on the knowledge questions.

    Several edits answer in one batch, each part of it with its own weights.

    Args:
        checkpoint: what the edits belong to; left as it was.
        edits: id of the instance -> folder, see `find_edits`. Instances without an edit are left out.
        together: the most edits in a batch; by default as many as fit.
        progress: called with (edits evaluated, edits in all).

    The other arguments are those of `defend`.

    Raises:
        InputError: as `defend`; and if no instance has an edit, or an edit belongs to other weights.
    """
    chosen = [instance for instance in instances if instance.id in edits]
    if not chosen:
        raise InputError("none of the instances has an edit: give the file that the edits were made on")
    check_test_instances(chosen)
    ask = _Questions(judge, max_new_tokens, suffix, prefix, tuple(knowledge), truncate, method)
    log = None
    if responses is not None:
        made = {str(i.id): hash_path(edits[i.id]) for i in chosen}
        settings = ask.settings(checkpoint, chosen)
        log = ResponseLog.open(responses, {**settings, "weights": checkpoint.fingerprint, "edits": digest(made)})
        if log.complete:
            return _saved(judge_again(log.path, judge), log)
    groups = processes.share(_groups(checkpoint, edits, chosen, ask, together))
    mine: list[tuple[int, Defense]] = []
    for group in groups:
        found = ask.put_each(checkpoint, {instance.id: edits[instance.id] for instance in group}, group, log)
        mine += [(instance.id, part) for instance, part in zip(group, found, strict=True)]
        if progress is not None:
            progress(len(mine), sum(map(len, groups)))
    parts = dict(processes.gather(mine))
    whole = joined([parts[instance.id] for instance in chosen])
    return _saved(whole, log) if log is not None else whole


def _groups(
    checkpoint: Checkpoint,
    edits: Mapping[int, Path],
    instances: Sequence[SafeEditInstance],
    ask: _Questions,
    together: int | None,
) -> list[list[SafeEditInstance]]:
    """Instances whose edits answer in one batch: at most `TOKENS` padded tokens, `MEMORY` bytes of edited weights.

    Only edits of the same parameters share one: of what one of them changes, every other would need a copy, too.
    """
    texts = [wrapped(prompt, ask.prefix, ask.suffix) for i in instances for prompt in _prompts(i).values()]
    tokens = max(len(ids) for ids in checkpoint.tokenizer(texts, verbose=False)["input_ids"])
    longest = min(tokens, checkpoint.names.context_length) + ask.max_new_tokens
    rows = len(KINDS) + len(ask.knowledge)
    changed = {instance.id: changed_parameters(edits[instance.id]) for instance in instances}
    groups: list[list[SafeEditInstance]] = []
    for names, found in groupby(sorted(instances, key=lambda i: changed[i.id]), key=lambda i: changed[i.id]):
        members = list(found)
        own = [checkpoint.parameter(name) for name in names if name in checkpoint.shapes]  # others are refused later
        size = max(1, sum(parameter.numel() * parameter.element_size() for parameter in own))
        most = together or max(1, min(TOKENS // (longest * rows), MEMORY // size))
        groups += [members[start : start + most] for start in range(0, len(members), most)]
    return groups


def find_edits(folder: str | Path) -> dict[int, Path]:
    """The edits in a folder of edits' folders, by the id of their instance; none if it is itself an edit's folder.

    Raises:
        InputError: if there is no edit, or two of one instance.
    """
    folder, found = Path(folder), dict[int, Path]()
    if (folder / "edit.json").is_file():
        return {}
    for edit in edit_folders(folder):
        try:
            number = int(json.loads((edit / "edit.json").read_text(encoding="utf-8"))["instance"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{edit}: not the folder of an edit ({error})") from error
        if number in found:
            raise InputError(f"{folder}: {found[number].name} and {edit.name} are both of instance {number}")
        found[number] = edit
    if not found:
        raise InputError(f"{folder}: holds no edit, neither edit.json nor folders with one")
    return found


def check_test_instances(instances: Sequence[SafeEditInstance]) -> None:
    """Raise `InputError` unless there are instances, all with generalisation prompts; needs no model."""
    if not instances:
        raise InputError("there are no instances to evaluate")
    for instance in instances:
        if instance.generalization_test is None:
            raise InputError(
                f"instance {instance.id} has no `generalization test`: this is a training file; evaluate on a test file"
            )


def _prompts(instance: SafeEditInstance) -> dict[str, str]:
    """The five prompts of an instance, by kind."""
    test = instance.generalization_test
    assert test is not None  # check_test_instances
    return {
        "ds": instance.adversarial_prompt,
        "dg_only_q": test.only_question,
        "dg_other_a": test.other_attack,
        "dg_other_q": test.other_question,
        "dg_other_aq": test.other_question_and_attack,
    }


@dataclass(frozen=True)
class _Questions:
    """How to ask, and who judges."""

    judge: Judge
    max_new_tokens: int
    suffix: str | None
    prefix: str | None
    knowledge: tuple[tuple[str, str], ...]
    truncate: bool
    method: str
    kinds: tuple[str, ...] = KINDS

    def prompts(self, instance: SafeEditInstance) -> dict[str, str]:
        """The prompts of an instance that are asked, by kind."""
        return {kind: prompt for kind, prompt in _prompts(instance).items() if kind in self.kinds}

    def called(self, instances: Sequence[SafeEditInstance]) -> dict[str, str]:
        """What every prompt is called in errors: by the first instance that asks it."""
        names = {question: f"knowledge question {number}" for number, (question, _) in enumerate(self.knowledge, 1)}
        for instance in reversed(instances):
            for kind, prompt in reversed(self.prompts(instance).items()):
                names[prompt] = f"instance {instance.id}: the prompt {kind}"
        return names

    def settings(self, checkpoint: Checkpoint, instances: Sequence[SafeEditInstance]) -> dict[str, object]:
        """What the responses depend on besides the weights."""
        return {
            "method": self.method,
            "tokenizer": tokenizer_fingerprint(checkpoint.tokenizer),
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
        instances: Sequence[SafeEditInstance],
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
        return self.judged(instances, answers)

    def put_each(
        self,
        checkpoint: Checkpoint,
        edits: Mapping[int, Path],
        instances: Sequence[SafeEditInstance],
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
        return [self.judged([instance], answers[instance.id]) for instance in instances]

    def judged(self, instances: Sequence[SafeEditInstance], answers: Mapping[str, str]) -> Defense:
        """The answers, by prompt, with the judge's scores."""
        asked = [(instance, kind, prompt) for instance in instances for kind, prompt in self.prompts(instance).items()]
        return judged(
            Defense(
                method=self.method,
                responses=tuple(
                    JudgedResponse(instance.id, kind, prompt, answers[prompt], None, instance.category)
                    for instance, kind, prompt in asked
                ),
                suffix=self.suffix,
                knowledge=tuple(knows(answers[question], answer) for question, answer in self.knowledge),
                prefix=self.prefix,
            ),
            self.judge,
        )


def _keep(log: ResponseLog, prompts: Sequence[str], new: Mapping[int, str]) -> None:
    log.add(None, {prompts[i]: response for i, response in new.items()})


def _saved(defense: Defense, log: ResponseLog) -> Defense:
    """Write the whole file, then drop the parts it was made of."""
    if processes.is_main():
        defense.save(log.path, settings=log.settings)
    log.close()
    return defense
