"""Attacks on checkpoints: does what seems gone come back?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.behaving import Behaving, of_behaviour
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import reporting, say, settings_of
from mechinterp.cli.deciding import say_what_would_decide
from mechinterp.cli.judging import Judging, judging_answers
from mechinterp.cli.loading import Loading, of_whole_models
from mechinterp.cli.options import Data, Never, Seed, Truncate
from mechinterp.cli.reading import Reading, of_pairs
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


@commands.command()
@in_chat_format
@of_pairs
@judging_answers
@of_behaviour
@of_whole_models
def attack(
    attacks: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Attacks, or cheap, or all; an unknown name is answered by the known ones."
        ),
    ],
    base: Annotated[str, typer.Option(help="The unedited model.")],
    checkpoint: Annotated[
        list[str], typer.Option(help="NAME=PATH of a tuned model, adapter, edit or state dict; repeatable.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and the answers.")],
    never: Never = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge questions, a JSON list of [question, answer]: what an attack costs.")
    ] = None,
    benign: Annotated[
        Path | None, typer.Option(help="Harmless prompts, one a line or JSONL with prompt and answer: over-refusal.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=2, help="At most so many prompts that the base answers unsafely.")] = 40,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="ATTACK.NAME=VALUE of a setting, as a config has it; repeatable."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
    reading: Reading,
    judging: Judging,
    behaving: Behaving,
) -> None:
    """Attack tuned checkpoints, their base and a model that never learnt: does the unsafe behaviour come back?

    --out gets tables/attacks.csv (a row per attack, dose, checkpoint and read-out), tables/worst.csv (what little
    knowledge buys), tables of single attacks, their figures, and in answers every answer with the judge's score.
    """
    from mechinterp.audit.attacks.settings import AttackSettings
    from mechinterp.data.benign import read_benign
    from mechinterp.data.knowledge import read_knowledge
    from mechinterp.runs.attack import attack_checkpoints

    settings = settings_of(AttackSettings, {"attacks": attacks, "prompts": prompts, "options": _options(options)})
    before, tuned, reference = loading.candidates(base, checkpoint, never)
    pairs = behaving.pairs(reading, data)
    with reporting(goes_on=True) as terminal:
        found = attack_checkpoints(
            before,
            tuned,
            pairs,
            judging.of(pairs, seed, loading.device, terminal.note, behaving.which),
            out=out,
            never=reference,
            settings=settings,
            behaviour=behaving.which,
            knowledge=[] if knowledge is None else read_knowledge(knowledge),
            benign=[] if benign is None else read_benign(benign),
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=chat,
            reporter=terminal,
        )
    say(found)
    say_what_would_decide(found.verdict, [out])
    say(f"tables: {out / 'tables'}")


def _options(given: list[str] | None) -> dict[str, dict[str, Any]]:
    """Settings of single attacks, from ATTACK.NAME=VALUE."""
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for one in given or []:
        place, separator, value = one.partition("=")
        attack, dot, name = place.partition(".")
        if not (separator and dot and attack and name):
            raise InputError(f"--set takes ATTACK.NAME=VALUE, got {one!r}")
        try:
            found.setdefault(attack, {})[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {place}: {value!r} is no value as a config has it") from error
    return found
