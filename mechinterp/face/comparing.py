"""Erased or bypassed, and does it come back: any checkpoints against their base, as a run that is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.choosing import Named
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.origins.settings import OriginsSettings
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.face.given import check_given
from mechinterp.face.loading import CheckpointLike, DirectionLike, directions_of, probe_of
from mechinterp.face.looked_up import Opening, Several, TunedLike, looked_up
from mechinterp.measures.distances import Distance, check_distance
from mechinterp.runs.comparison import compare_checkpoints
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.relapse import treat_checkpoints


def compare(
    base: CheckpointLike,
    tuned: Several,
    data: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
    probe: ToxicProbe | str | Path,
    judge: Named | Sequence[Named] | None = None,
    out: str | Path | None = None,
    block: int | None = None,
    distance: Distance = "released",
    directions: Mapping[str, DirectionLike] | None = None,
    relapse: bool | RelapseSettings = False,
    origins: bool | OriginsSettings = True,
    never: TunedLike | None = None,
    settings: ComparisonSettings | None = None,
    truncate: bool = False,
    without_sinks: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> RunFolder:
    """Erased or bypassed: tuned checkpoints against their base, as tables, figures and a report.

    What lies in folders is opened one at a time; a checkpoint in memory stays there. Both give the same tables.

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: name in the tables -> checkpoint in memory, folder, adapter, edit, or file of weights; an edit stands on
            the base. Or one of them.
        data: pairs (SafeEdit instances are some), or the file of them; of another behaviour its data.
        behaviour: as `mi.attack` takes it.
        probe: of the base, from `mi.fit_probe`, or the file of one.
        judge: of the base's answers: a judge, the folder of a sequence classifier, `keywords`, or None for one made of
            the data's own answers, which judges none that it has seen; or two of them, of which the first decides.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        block: the toxic layer, from 0; located if not given.
        distance: by which it is located.
        directions: to measure along besides those that every comparison has, by name.
        relapse: also put parts of the base back into each checkpoint: does the unsafe behaviour return?
        origins: also share each change out among the changed weights; base and tuned are then in memory together.
        never: a model that never learnt the behaviour: how deep the changes go is measured against it.
        settings: how the comparison is made, see `mi.ComparisonSettings`.
        truncate: cut prompts that exceed the context from the left instead of raising.
        without_sinks: leave tokens with massive activations out of distances, means and lengths.
        seed: of every random choice.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: the one format that all are read in, as `mi.load` takes it; None for that of a base in memory, of a base
            on disk its own template's, if it has one.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The run: `.verdict`, `.table("decomposition")`, `.plot("erase_or_bypass")`, `.report`.

    Raises:
        InputError: before anything long, for checkpoints that cannot be compared, a probe of another base, or data that
            is not there.

    Example:
        >>> found = mi.compare("BASE", {"dpo": "runs/dpo"}, "SafeEdit_test.json", probe="probe.safetensors")
        >>> found.verdict
    """
    check_given("settings", settings, ComparisonSettings, "mi.ComparisonSettings(...)")
    check_given("relapse", relapse, (bool, RelapseSettings), "True, or mi.RelapseSettings(...)")
    check_given("origins", origins, (bool, OriginsSettings), "False, or mi.OriginsSettings(...)")
    check_given("block", block, Integral, "a block's number, from 0")
    check_distance(distance)
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, data, opening, judge=judge, behaviour=behaviour, never=never) as work:
        more = [] if directions is None else list(directions_of(directions, "the base").values())
        return compare_checkpoints(
            work.base,
            work.tuned,
            work.instances,
            probe_of(probe),
            work.judge,
            out=None if out is None else Path(out),
            block=block,
            distance=distance,
            seed=seed,
            settings=settings,
            behaviour=work.behaviour,
            more=more,
            truncate=truncate,
            chat=work.chat,
            without_sinks=without_sinks,
            relapse=(RelapseSettings() if relapse else None) if isinstance(relapse, bool) else relapse,
            origins=(OriginsSettings() if origins else None) if isinstance(origins, bool) else origins,
            never=work.never,
            reporter=work.reporter,
        )


def relapse(
    base: CheckpointLike,
    tuned: Several,
    data: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
    probe: ToxicProbe | str | Path | None = None,
    judge: Named | Sequence[Named] | None = None,
    out: str | Path | None = None,
    block: int | None = None,
    distance: Distance = "released",
    never: TunedLike | None = None,
    settings: RelapseSettings | None = None,
    max_new_tokens: int = 32,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> RunFolder:
    """Does it come back: the share of the lost unsafe answers that returns when parts of the base are put back.

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: name in the tables -> checkpoint in memory, folder, adapter, edit, or file of weights; or one of them.
        data: pairs (SafeEdit instances are some), or the file of them: their prompts are asked. Of another behaviour
            its data.
        behaviour: as `mi.attack` takes it.
        probe: of the base: the keys of its most toxic value vectors are scaled too.
        judge: as `mi.compare` takes it.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        block: the toxic layer, from 0; located if not given.
        distance: by which it is located.
        never: a model that never learnt the behaviour, treated too, as `never`: what comes to it is not coming back.
        settings: how the test is made, see `mi.RelapseSettings`.
        max_new_tokens: longest answer.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of every random choice.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: the one format that all are read in, as `mi.load` takes it; None for that of a base in memory, of a base
            on disk its own template's, if it has one.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The run: `.table("relapse_verdict")`, `.table("relapse")`, `.plot("relapse")`.

    Raises:
        InputError: for checkpoints that cannot be compared, or a probe of other weights.

    Example:
        >>> mi.relapse("BASE", {"dpo": "runs/dpo"}, "SafeEdit_test.json").table("relapse_verdict")
    """
    check_given("settings", settings, RelapseSettings, "mi.RelapseSettings(...)")
    check_given("block", block, Integral, "a block's number, from 0")
    check_distance(distance)
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, data, opening, judge=judge, behaviour=behaviour, never=never) as work:
        return treat_checkpoints(
            work.base,
            work.tuned,
            work.instances,
            work.judge,
            out=None if out is None else Path(out),
            probe=None if probe is None else probe_of(probe),
            block=block,
            distance=distance,
            settings=settings,
            behaviour=work.behaviour,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            never=work.never,
            chat=work.chat,
            reporter=work.reporter,
        )
