"""What `mechinterp edit --method rome|memit|alphaedit|ft_m` does: facts instead of instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mechinterp.cli.added import adding
from mechinterp.cli.common import is_main
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.cli.terminal import Terminal
    from mechinterp.data.facts.fact import Fact
    from mechinterp.methods.facts.editing import Editor, Mode
    from mechinterp.methods.facts.settings import EditorSettings
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.deltas import WeightDelta
    from mechinterp.models.passes.second_moments import SecondMoments


class MethodName(StrEnum):
    """What edits: DINM instances, the others facts."""

    dinm = "dinm"
    rome = "rome"
    memit = "memit"
    alphaedit = "alphaedit"
    ft_m = "ft_m"


class FactTokenName(StrEnum):
    """Where an edit of a fact acts."""

    subject_last = "subject_last"
    last = "last"


OPTIONS: dict[str, Any] = {
    "method": Annotated[
        MethodName, typer.Option(help="dinm edits instances of --data; the others facts of --facts, numbered from 1.")
    ],
    "facts": Annotated[
        Path | None,
        typer.Option(help="Facts: JSON lines or a list, a set of KnowEdit, a relation of LRE, or `common`."),
    ],
    "settings_file": Annotated[
        Path | None, typer.Option("--settings", help="EasyEdit's settings file; options given beside it count more.")
    ],
    "fact_token": Annotated[
        FactTokenName | None, typer.Option(help="Where a fact is edited: its subject's last token, or the prompt's.")
    ],
    "moments": Annotated[
        Path | None,
        typer.Option(help="Second moments for memit and alphaedit (.safetensors); made of --texts if not there yet."),
    ],
    "texts": Annotated[Path | None, typer.Option(help="Texts to make second moments of, one a line.")],
    "seed": Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the contexts that the model writes itself.")
    ],
}


@dataclass(frozen=True)
class FactEditing:
    """The options of `edit` that are about facts."""

    method: MethodName = MethodName.dinm
    facts: Path | None = None
    settings_file: Path | None = None
    fact_token: FactTokenName | None = None
    moments: Path | None = None
    texts: Path | None = None
    seed: int = 0

    def check(self, unused: Mapping[str, Any]) -> None:
        """Refuse options that the method has no use for.

        Args:
            unused: what was given of those that are DINM's alone, by the names of the arguments.

        Raises:
            InputError: naming the option.
        """
        if self.method is MethodName.dinm:
            mine = {name: getattr(self, name) for name in ("facts", "fact_token", "moments", "texts")}
            mine["settings_file"] = self.settings_file
            unused = mine
        elif self.facts is None:
            raise InputError(f"--method {self.method.value} edits facts: give `facts`")
        elif self.method in (MethodName.rome, MethodName.memit, MethodName.alphaedit):
            pass
        else:
            unused = {**unused, **{name: getattr(self, name) for name in ("fact_token", "moments", "texts")}}
        if given := [name for name, value in unused.items() if value]:
            raise InputError(f"`{given[0]}` is not for --method {self.method.value}")

    def chosen(self, wanted: Sequence[int] | None, every: bool) -> dict[int, Fact]:
        """The facts that --instance or --all choose, by their numbers; the first one without either."""
        from mechinterp.data.facts.named import named_facts

        assert self.facts is not None
        facts = named_facts(self.facts)
        if every and wanted:
            raise InputError("--all and --instance exclude each other")
        numbers = range(1, len(facts) + 1) if every else dict.fromkeys(wanted or [1])
        if unknown := [number for number in numbers if not 1 <= number <= len(facts)]:
            raise InputError(f"{self.facts}: no fact has the number {unknown[0]}; there are 1 to {len(facts)}")
        return {number: facts[number - 1] for number in numbers}

    def settings(self, checkpoint: Checkpoint, given: Mapping[str, Any]) -> EditorSettings:
        """Those of the file, or of the family, with what was given in their place.

        Args:
            checkpoint: the model.
            given: from options, by the settings' names; None for none.

        Raises:
            InputError: for a file of another method or model, or a setting that the method has not.
        """
        from mechinterp.methods.facts.easyedit import read_easyedit
        from mechinterp.methods.facts.settings import default_settings

        more = {name: value for name, value in given.items() if value is not None}
        if self.fact_token is not None:
            more["fact_token"] = self.fact_token.value
        if self.method is MethodName.ft_m and "blocks" in more:
            blocks = more.pop("blocks")
            if len(blocks) > 1:
                raise InputError("--method ft_m trains one block: name one with --layer")
            more["block"] = blocks[0]
        if self.settings_file is None:
            return default_settings(self.method.value, checkpoint, more)
        released = read_easyedit(self.settings_file).settings_of(self.method.value, checkpoint.names)
        return default_settings(self.method.value, checkpoint, {**released, **more})


of_facts = adding("facts", OPTIONS, FactEditing, vars(FactEditing()))
"""Gives a command these options, which it gets as one argument, `facts`: a `FactEditing`."""


def edit_chosen(
    checkpoint: Checkpoint,
    facts: Mapping[int, Fact],
    options: FactEditing,
    settings: EditorSettings,
    terminal: Terminal,
    *,
    mode: str,
    out: Path,
    rank: int | None,
) -> tuple[WeightDelta, str]:
    """Edit facts into OUT, each of several into OUT/NUMBER/; gives the last edit, and what there is to say."""
    from mechinterp.methods.facts.editing import edit_facts
    from mechinterp.methods.facts.keeping import keep_facts
    from mechinterp.methods.facts.requests import Request
    from mechinterp.models.deltas import WeightDelta

    requests = [Request.of(number, fact) for number, fact in facts.items()]
    several = mode == "each" and len(requests) > 1
    moments = _moments(checkpoint, options, settings, terminal.progress("second moments"))
    method, progress = cast("Editor", options.method.value), terminal.progress("editing")
    given: dict[str, Any] = {"settings": settings, "moments": moments, "seed": options.seed, "progress": progress}
    if several:
        if there := keep_facts(out, checkpoint, requests, method, rank=rank, **given):
            terminal.note(f"{there} of {len(requests)} edits were there already")
        found = WeightDelta.load(out / str(requests[-1].id))
    else:
        for found in edit_facts(checkpoint, requests, method, mode=cast("Mode", mode), **given):
            if is_main():
                found.save(out, rank=rank)
    blocks = ", ".join(f"layer {block + 1} (block {block})" for block in (found.block, *found.also))
    if len(requests) > 1:
        which = "edits" if several else "one edit"
        return found, f"{which} of {len(requests)} facts by {options.method.value} at {blocks}: {out}"
    first, last = found.log[0].loss_edit, found.log[-1].loss_edit
    loss = f"loss of the target {first:.3f} -> {last:.3f}"
    return found, f"edit of fact {found.instance} by {options.method.value} at {blocks}, {loss}: {out}"


def _moments(
    checkpoint: Checkpoint, options: FactEditing, settings: EditorSettings, progress: Any
) -> SecondMoments | None:
    """Those of the file, or made of texts and kept there; None where the method needs none."""
    from mechinterp.data.texts import read_text_lines
    from mechinterp.methods.facts.editing import moments_for, needs_moments
    from mechinterp.models.passes.second_moments import SecondMoments

    if not needs_moments(settings):
        if options.moments or options.texts:
            raise InputError(f"second moments are not for --method {options.method.value} with these settings")
        return None
    if options.moments is not None and options.moments.exists():
        return SecondMoments.load(options.moments)
    lines = [] if options.texts is None else read_text_lines(options.texts, "texts, one a line")
    texts = [line for _, line in lines] or None
    found = moments_for(checkpoint, texts, settings, progress=progress)
    if found is not None and options.moments is not None and is_main():
        found.save(options.moments)
    return found
