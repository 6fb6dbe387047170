"""Unlearning: making a checkpoint that forgets, where its gradients say so, and what is forgotten."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.chatting import in_chat_format
from mechinterp.cli.common import is_main, label_and_path, reporting, say
from mechinterp.cli.loading import Loading, of_a_model
from mechinterp.cli.options import Model, Seed, Truncate
from mechinterp.cli.training import OPTIONS as TRAINING
from mechinterp.cli.training import settings_given
from mechinterp.errors import InputError
from mechinterp.methods.registry import UNLEARNING, find_unlearning, settings_for

if TYPE_CHECKING:
    from mechinterp.data.scopes import Scopes
    from mechinterp.models.text.chat import ChatChoice

commands = typer.Typer()


class PartName(StrEnum):
    """Which rows of a scope of KnowUnDo."""

    train = "train"
    val = "val"
    both = "both"


class PerName(StrEnum):
    """What is located."""

    tensor = "tensor"
    block = "block"
    neuron = "neuron"


Forget = Annotated[
    Path, typer.Option(help="What is to be forgotten: prompts with answers (JSON), facts, pairs, a scope of KnowUnDo.")
]
Retain = Annotated[Path | None, typer.Option(help="What is to be kept, likewise.")]
Part = Annotated[PartName, typer.Option(help="Which rows of scopes of KnowUnDo.")]
Relation = Annotated[
    list[str] | None,
    typer.Option(help="Of the facts of --forget only those of this relation; the others are kept. Repeatable."),
]
Separator = Annotated[
    str | None,
    typer.Option(help=r"Between prompt and answer, and part of the answer; KnowUnDo has two line ends, '\n\n'."),
]


def _scopes(forget: Path, retain: Path | None, part: PartName, relation: list[str] | None) -> Scopes:
    from mechinterp.data.question_files import read_scopes

    return read_scopes(forget, retain, part.value, relations=relation or ())


def _read(separator: str | None) -> str | None:
    r"""A separator as it is meant: a shell passes `\n` on as two characters."""
    return None if separator is None else separator.replace("\\n", "\n")


@commands.command()
@in_chat_format
@of_a_model
@adding("given", TRAINING, settings_given)
def unlearn(
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(UNLEARNING)}.")],
    model: Model,
    forget: Forget,
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint, new or empty.")],
    retain: Retain = None,
    part: Part = PartName.train,
    relation: Relation = None,
    seed: Seed = 0,
    *,
    given: dict[str, Any],
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """Make a checkpoint that forgets some answers and keeps others; of pairs, `mechinterp train` does it too."""
    from mechinterp.data.storage.places import check_replaceable, check_writable
    from mechinterp.methods.forgetting import unlearnt

    find_unlearning(method)
    settings = settings_for(method, given)
    scopes = _scopes(forget, retain, part, relation)
    check_writable(out, kind="folder")
    check_replaceable(out)
    with reporting() as terminal:
        made = unlearnt(method, loading.of(model, chat), scopes, settings=settings, seed=seed, reporter=terminal)
        if is_main():
            made.save(out)
    say(f"checkpoint: {out}")


@commands.command(name="locate-gradients")
@in_chat_format
@of_a_model
def locate_gradients(
    model: Model,
    forget: Forget,
    retain: Retain = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table and the list of what is located.")] = None,
    per: Annotated[PerName, typer.Option(help="What is located.")] = PerName.tensor,
    cosine: Annotated[float, typer.Option(help="Located lies below it: a quantile, see --absolute.")] = 0.5,
    magnitude: Annotated[float, typer.Option(help="Located lies above it: a quantile, see --absolute.")] = 0.5,
    quantiles: Annotated[
        bool, typer.Option("--quantiles/--absolute", help="Whether both are quantiles, or numbers themselves.")
    ] = True,
    adapter: Annotated[
        str | None, typer.Option(help="Folder of an adapter on the model, of whose factors gradients are taken.")
    ] = None,
    only: Annotated[list[str] | None, TRAINING["only"].__metadata__[0]] = None,
    freeze: Annotated[list[str] | None, TRAINING["freeze"].__metadata__[0]] = None,
    corrupt: Annotated[
        float, typer.Option(min=0, max=1, help="Of so large a share of an answer's tokens as many are drawn anew.")
    ] = 0.5,
    copies: Annotated[int, typer.Option(min=1, help="Of each text.")] = 3,
    separator: Separator = None,
    part: Part = PartName.both,
    relation: Relation = None,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """Where the gradients of forgetting and keeping part (MemFlex): low cosine, large gradient.

    --out gets gradient_region.csv, a row per tensor, block or neuron, and located.json, the names of what is located,
    which `--set region=[...]` of memflex takes.
    """
    from mechinterp.data.storage.files import write_json
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.data.storage.tables import write_table
    from mechinterp.measures.gradient_region import Thresholds
    from mechinterp.methods.task import checked_settings
    from mechinterp.methods.unlearning.region import locate_by_gradient
    from mechinterp.methods.unlearning.settings import UnlearningSettings

    fed = {"adapter": adapter, "only": only or (), "freeze": freeze or (), "separator": _read(separator)}
    settings = checked_settings("locate-gradients", UnlearningSettings, fed)
    thresholds = Thresholds(cosine, magnitude, quantiles)
    scopes = _scopes(forget, retain, part, relation)
    if out is not None:
        check_writable(out / "gradient_region.csv", kind="file")
        check_free(out / "located.json")
    with reporting() as terminal:
        found = locate_by_gradient(
            loading.of(model, chat),
            scopes.forget,
            scopes.retain,
            per=per.value,
            thresholds=thresholds,
            corrupt=corrupt,
            copies=copies,
            settings=settings,
            seed=seed,
            progress=terminal.progress("locating"),
        )
    if out is not None and is_main():
        write_table(out / "gradient_region.csv", found.table)
        write_json(out / "located.json", list(found.parameters or found.names))
    counts = found.table.groupby("block", dropna=False)["located"].agg(["sum", "count"])
    for block, row in counts.iterrows():
        place = f"block {block}" if str(block).isdecimal() else "outside the blocks"
        say(f"{place:<20}{row['sum']} of {row['count']} {per.value}s located")
    say(f"cosine below {found.cosine:.4g}, magnitude above {found.magnitude:.4g}: {len(found.names)} located")
    if out is not None:
        say(f"tables: {out}")


@commands.command(name="evaluate-unlearning")
@in_chat_format
@of_a_model
def evaluate_unlearning(
    model: Annotated[list[str], typer.Option(help="NAME=PATH or PATH of a checkpoint; repeatable.")],
    forget: Forget,
    retain: Retain = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    prefix: Annotated[str | None, typer.Option(help="Text before every prompt, as an instruction to refuse.")] = None,
    separator: Separator = None,
    part: Part = PartName.val,
    relation: Relation = None,
    truncate: Truncate = False,
    seed: Seed = 0,
    *,
    loading: Loading,
    chat: ChatChoice,
) -> None:
    """What is forgotten and what is kept: teacher-forced, as KnowUnDo measures, and what is said by itself.

    --out gets unlearning.csv (quantities with intervals) and unlearning_answers.csv (every question with its answers).
    """
    import pandas as pd

    from mechinterp.answers.unlearned import ask_scopes, summary_rows
    from mechinterp.cli.terminal import print_table
    from mechinterp.data.storage.places import check_free, check_writable
    from mechinterp.data.storage.tables import write_table

    named = [label_and_path(text) for text in model]
    if len({name for name, _ in named}) < len(named):
        raise InputError("two models have the same name; give NAME=PATH")
    scopes = _scopes(forget, retain, part, relation)
    if out is not None:
        check_writable(out / "unlearning.csv", kind="file")
        check_free(out / "unlearning_answers.csv")
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    fed: dict[str, Any] = {"prefix": prefix, "separator": _read(separator), "truncate": truncate}
    with reporting() as terminal:
        for name, path in named:
            progress = terminal.progress(f"reading: {name}")
            opened = loading.of(path, chat)
            found = ask_scopes(opened, scopes, max_new_tokens=max_new_tokens, progress=progress, **fed)
            rows += summary_rows(name, found, seed=seed)
            answers += [each.row(name) for each in found]
            del opened  # before the next is loaded
    if out is not None and is_main():
        write_table(out / "unlearning.csv", pd.DataFrame(rows))
        write_table(out / "unlearning_answers.csv", pd.DataFrame(answers))
    headings = ("method", "scope", "success", "answer said", "looks degenerate", "n")
    values = {(row["method"], row["scope"], row["quantity"]): row for row in rows}
    lines = []
    for method, scope, quantity in values:
        if quantity == "success":
            beside = [values.get((method, scope, name)) for name in ("success", "said_answer", "degenerate")]
            told = ["" if each is None else f"{each['value']:.3f}" for each in beside]
            lines.append((method, scope, *told, str(values[method, scope, quantity]["n"])))
    print_table("forgotten and kept, teacher-forced, beside what is said", headings, lines)
    if out is not None:
        say(f"tables: {out}")
