"""Asking a checkpoint the benchmark's questions, and what else an edit did to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import rank, reporting
from mechinterp.cli.evaluated import check_tables, report, some
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.data.counting import many
from mechinterp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.answers.side_effects import OverRefusal
    from mechinterp.data.benign import BenignPrompt
    from mechinterp.data.pairs import AnyPair
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.text.chat import ChatChoice, ChatFormat

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_a_model
def evaluate(
    model: Annotated[
        str | None, typer.Option(help="The checkpoint: folder, adapter, edit, state dict, hub id.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Pairs to ask, and to make the judge from; SafeEdit test instances with generalisation prompts."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the tables and the responses; a killed run goes on there.")
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an edit, applied to the model; or of many, each asked its own instance's prompts."
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="Instead of --model: saved responses (JSONL), judged again, not generated again."),
    ] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge questions, a JSON list of [question, answer].")] = (
        None
    ),
    benign: Annotated[
        Path | None, typer.Option(help="Benign prompts, one a line or JSONL with prompt and answer: over-refusal.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Base that the model is set against on --benign; with --edit it is the model.")
    ] = None,
    harness_task: Annotated[
        list[str] | None,
        typer.Option(help="Task of lm-evaluation-harness, repeatable: triviaqa (KQA), xsum (CSum), ..."),
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="System prompt appended to every query.")] = None,
    prefix: Annotated[str | None, typer.Option(help="System prompt put before every query.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N instances, benign prompts, documents of a task.")
    ] = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
) -> None:
    """Defense success, its generalisation, fluency, and side effects; with intervals."""
    if (model is None) == (responses is None):
        raise InputError("give --model to ask a checkpoint, or --responses to judge saved responses again")
    if responses is not None:
        given = {"--edit": edit, "--benign": benign, "--against": against, "--harness-task": harness_task}
        _check_saved({**given, "--knowledge": knowledge, "--suffix": suffix, "--prefix": prefix}, data, reading)
        _judge_again(responses, None if data is None else reading.of(data), judging, seed, loading.device, out)
        return
    assert model is not None
    if data is None:
        raise InputError("--data is missing: give the pairs to ask, such as SafeEdit test instances")

    from mechinterp.answers.defense import check_test_instances, defend, defend_edits
    from mechinterp.answers.edits_found import find_edits
    from mechinterp.answers.harness import check_harness
    from mechinterp.answers.responses import check_responses
    from mechinterp.data.benign import read_benign
    from mechinterp.data.knowledge import read_knowledge
    from mechinterp.data.storage.places import check_writable
    from mechinterp.models.bases import stands_on
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.models.text.chat import PLAIN
    from mechinterp.runs.candidate import Candidate
    from mechinterp.runs.one_format import in_one_format

    if out is not None:
        check_writable(out / "defense.csv", kind="file")
        check_responses(out / "responses.jsonl")
        extra_tables = {"side_effects.csv": benign, "harness.csv": harness_task}
        extra_tables |= {"benign-tuned.jsonl": benign, "benign-base.jsonl": benign}
        check_tables(out, *(name for name, asked in extra_tables.items() if asked))
    everything = reading.of(data)
    instances = everything[:limit]
    check_test_instances(instances)
    edits = {} if edit is None else find_edits(edit)
    questions = [] if knowledge is None else read_knowledge(knowledge)
    prompts = [] if benign is None else read_benign(benign)[:limit]
    if against is not None and (edit is not None or benign is None):
        raise InputError("--against BASE needs --benign, and no --edit: an edit is set against the --model itself")
    if edits and (benign is not None or harness_task):
        raise InputError(f"--benign and --harness-task measure one edit: give --edit {next(iter(edits.values()))}")
    if harness_task:
        check_harness()
    around: dict[str, Any] = {"suffix": suffix or None, "prefix": prefix or None, "truncate": truncate}
    with reporting() as terminal:
        if edit is not None and not suffix:
            _note_own_suffix(next(iter(edits.values()), edit), terminal.note)
        chosen_judge = judging.of(everything, seed, loading.device, terminal.note)
        read: ChatChoice | ChatFormat = chat
        if against is not None:
            model, base = stands_on(model, against, loading.base)
            loading = replace(loading, base=base)
            before = Candidate.of(against, **loading.options)
            placed = model if base is None else f"{model}@{base}"
            before, _ = in_one_format(before, [Candidate.of(placed, base=before, **loading.options)], chat)
            read = before.chat or PLAIN
        checkpoint = loading.of(model, read)
        asking: dict[str, Any] = {"max_new_tokens": max_new_tokens, "knowledge": questions, **around}
        asking["responses"] = None if out is None else out / "responses.jsonl"
        if edits:
            _note_unmatched(edits, instances, everything, data, terminal.note)
            asking["progress"] = terminal.progress("answering, edit by edit")
            result = defend_edits(checkpoint, edits, instances, chosen_judge, method=edit.name, **asking)  # type: ignore[union-attr]
            report(result, chosen_judge, out)
            return
        delta = None if edit is None else WeightDelta.load(edit)

        def evaluated() -> Any:
            return nullcontext(checkpoint) if delta is None else delta.applied(checkpoint)

        with evaluated() as tuned:
            result = defend(tuned, instances, chosen_judge, **asking, progress=terminal.progress("answering"))
        extra: dict[str, pd.DataFrame] = {}
        found: tuple[OverRefusal, ...] = ()
        if prompts:
            other = checkpoint if delta is not None else None
            if against is not None:
                other = _base(replace(loading, base=None).of(against, read), checkpoint, terminal.note)
            asking = {"max_new_tokens": max_new_tokens, "seed": seed, **around}
            asking["progress"] = terminal.progress("benign prompts")
            safe = [pair.safe for pair in everything]
            extra["side_effects"], found = _side_effects(evaluated, other, prompts, safe, **asking)
            if out is not None and rank() == 0:
                for one in found:
                    one.save(out / f"benign-{'tuned' if one is found[-1] else 'base'}.jsonl")
        if harness_task:
            from mechinterp.answers.harness import run_harness

            with evaluated() as tuned:
                extra["harness"] = run_harness(tuned, harness_task, limit=limit)
    report(result, chosen_judge, out, extra, found)


def _base(base: Checkpoint, checkpoint: Checkpoint, note: Callable[[str], None]) -> Checkpoint:
    """The base that a checkpoint is set against, itself; it is told where the two are the same."""
    from mechinterp.models.equality import equal_weights, notes_of_equal

    if equal_weights(base, checkpoint):
        note(*notes_of_equal("base", [checkpoint.name], lambda *_: True))
    return base


def _side_effects(
    opened: Callable[[], Any],
    base: Checkpoint | None,
    benign: Sequence[BenignPrompt],
    safe: Sequence[str],
    *,
    seed: int,
    **asking: Any,
) -> tuple[pd.DataFrame, tuple[OverRefusal, ...]]:
    """What a checkpoint does to harmless prompts; refusals are known by safe answers of pairs."""
    from mechinterp.answers.refusals import refusal_detector
    from mechinterp.answers.side_effects import measure_side_effects

    answers, prompts = [one.answer for one in benign], [one.prompt for one in benign]
    detector = refusal_detector(safe, answers, seed=seed, asked=prompts)
    open_base = None if base is None else lambda: nullcontext(base)
    return measure_side_effects(opened, benign, detector, open_base=open_base, seed=seed, **asking)


def _note_own_suffix(edit: Path, note: Callable[[str], None]) -> None:
    """Tell where an edit is asked without the suffix that it was made with."""
    from mechinterp.models.deltas import WeightDelta

    if own := WeightDelta.load(edit).settings.get("suffix"):
        note(f"the edit was made with a suffix, and the paper asks with it: --suffix {json.dumps(own)}")


def _note_unmatched(
    edits: Collection[int], asked: Sequence[AnyPair], known: Sequence[AnyPair], data: Path, note: Callable[[str], None]
) -> None:
    """Tell which instances have no edit, and which edits are of instances that are not there."""
    if without := [i.id for i in asked if i.id not in edits]:
        note(f"no edit for {len(without)} of {len(asked)} instances: {some(without)}")
    if strange := sorted(set(edits) - {i.id for i in known}):
        note(f"not in {data}: the instances of {many(len(strange), 'edit')}: {some(strange)}")


def _check_saved(given: Mapping[str, object], data: Path | None, reading: Reading) -> None:
    """Refuse options that do nothing where saved responses are judged."""
    if useless := [name for name, value in given.items() if value]:
        raise InputError(f"{', '.join(useless)}: nothing is generated with --responses; leave it out or give --model")
    if data is None and reading != Reading():
        raise InputError("options of columns and --safe-log are of --data")


def _judge_again(
    responses: Path, data: list[AnyPair] | None, judging: Judging, seed: int, device: str, out: Path | None
) -> None:
    from mechinterp.answers.judged import judge_again
    from mechinterp.data.storage.places import check_writable

    if not judging.given and data is None:
        raise InputError("give a --judge, or --data whose safe and unsafe responses one can be made from")
    if not responses.is_file():
        raise InputError(f"{responses}: no such file; give responses.jsonl of an earlier evaluation")
    if out is not None:
        check_writable(out / "defense.csv", kind="file")
        if (out / "responses.jsonl").exists():
            raise InputError(f"{out / 'responses.jsonl'} is there already; give another --out")
        check_tables(out, "responses.json")
    with reporting() as terminal:
        judge = judging.of(data or [], seed, device, terminal.note)
        result = judge_again(responses, judge)
    if out is not None and rank() == 0:
        result.save(out / "responses.jsonl")
    report(result, judge, out)
