"""Defense success and its generalisation (Wang et al. 2.3): a checkpoint, or many edits of one, answers and is judged.

What is counted, and what the numbers do not show: `judged`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from mechinterp.answers.asking import Questions, prompts_by_kind, saved
from mechinterp.answers.judged import Defense, joined, judge_again
from mechinterp.answers.judged_response import KINDS
from mechinterp.answers.judges import Judge
from mechinterp.answers.responses import ResponseLog
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.provenance import digest
from mechinterp.errors import InputError, near
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.passes.side_by_side import changed_parameters
from mechinterp.models.passes.watching import Progress
from mechinterp.models.text.tokens import wrapped

TOKENS = 16384  # padded tokens in a batch that several edits answer

MEMORY = 2**30  # bytes of edited weights in it


def defend(
    checkpoint: Checkpoint,
    instances: Sequence[AnyPair],
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
    """Let a checkpoint answer the prompts of every instance, and judge the responses.

    Args:
        checkpoint: the model; left as it was.
        instances: pairs, asked their prompt; SafeEdit's, with generalisation prompts, all five.
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
        raise InputError(
            f"unknown kind of prompt {unknown[0]!r}; known are {', '.join(KINDS)}{near(unknown[0], KINDS)}"
        )
    label = method or checkpoint.name
    ask = Questions(judge, max_new_tokens, suffix, prefix, tuple(knowledge), truncate, label, tuple(kinds))
    if responses is None:
        return ask.put(checkpoint, instances, progress=progress)
    log = ResponseLog.open(responses, {**ask.settings(checkpoint, instances), "weights": checkpoint.fingerprint})
    if log.complete:
        return saved(judge_again(log.path, judge), log)
    return saved(ask.put(checkpoint, instances, log=log, progress=progress), log)


def defend_edits(
    checkpoint: Checkpoint,
    edits: Mapping[int, Path],
    instances: Sequence[AnyPair],
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
    ask = Questions(judge, max_new_tokens, suffix, prefix, tuple(knowledge), truncate, method)
    log = None
    if responses is not None:
        made = {str(i.id): hash_path(edits[i.id]) for i in chosen}
        settings = ask.settings(checkpoint, chosen)
        log = ResponseLog.open(responses, {**settings, "weights": checkpoint.fingerprint, "edits": digest(made)})
        if log.complete:
            return saved(judge_again(log.path, judge), log)
    groups = processes.share(_groups(checkpoint, edits, chosen, ask, together))
    mine: list[tuple[int, Defense]] = []
    for group in groups:
        found = ask.put_each(checkpoint, {instance.id: edits[instance.id] for instance in group}, group, log)
        mine += [(instance.id, part) for instance, part in zip(group, found, strict=True)]
        if progress is not None:
            progress(len(mine), sum(map(len, groups)))
    parts = dict(processes.gather(mine))
    whole = joined([parts[instance.id] for instance in chosen])
    return saved(whole, log) if log is not None else whole


def _groups(
    checkpoint: Checkpoint,
    edits: Mapping[int, Path],
    instances: Sequence[AnyPair],
    ask: Questions,
    together: int | None,
) -> list[list[AnyPair]]:
    """Instances whose edits answer in one batch: at most `TOKENS` padded tokens, `MEMORY` bytes of edited weights.

    Only edits of the same parameters share one: of what one of them changes, every other would need a copy, too.
    """
    texts = [wrapped(prompt, ask.prefix, ask.suffix) for i in instances for prompt in prompts_by_kind(i).values()]
    encoded = as_fed(checkpoint, texts, max_length=ANY_LENGTH, quiet=True)
    tokens = max(len(text.ids) for text in encoded)
    longest = min(tokens, checkpoint.names.context_length) + ask.max_new_tokens
    rows = len(KINDS) + len(ask.knowledge)
    changed = {instance.id: changed_parameters(edits[instance.id]) for instance in instances}
    groups: list[list[AnyPair]] = []
    for names, found in groupby(sorted(instances, key=lambda i: changed[i.id]), key=lambda i: changed[i.id]):
        members = list(found)
        own = [checkpoint.parameter(name) for name in names if name in checkpoint.shapes]  # others are refused later
        size = max(1, sum(parameter.numel() * parameter.element_size() for parameter in own))
        most = together or max(1, min(TOKENS // (longest * rows), MEMORY // size))
        groups += [members[start : start + most] for start in range(0, len(members), most)]
    return groups


def check_test_instances(instances: Sequence[AnyPair]) -> None:
    """Raise `InputError` unless there are instances, those of SafeEdit with generalisation prompts; needs no model."""
    if not instances:
        raise InputError("there are no instances to evaluate")
    for instance in instances:
        if isinstance(instance, SafeEditInstance) and instance.generalization_test is None:
            raise InputError(
                f"instance {instance.id} has no `generalization test`: this is a training file; evaluate on a test file"
            )
