"""What can still be read off the states of checkpoints, as a run that is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.choosing import Named
from mechinterp.face.loading import CheckpointLike
from mechinterp.face.looked_up import Opening, Several, TunedLike, looked_up
from mechinterp.runs.decoding import decode_checkpoints
from mechinterp.runs.folder import RunFolder


def decodability(
    base: CheckpointLike,
    tuned: Several,
    data: Sequence[Any] | str | Path,
    *,
    behaviour: Behaviour | str = UNSAFE,
    never: TunedLike | None = None,
    judge: Named | Sequence[Named] | None = None,
    out: str | Path | None = None,
    max_new_tokens: int = 32,
    truncate: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    chat: str | None = None,
    progress: bool | None = None,
) -> RunFolder:
    """Can it still be read off the states which prompts the base answers unsafely, and what it would say?

    Args:
        base: the unedited model: in memory, or a source that `mi.load` takes.
        tuned: name in the table -> checkpoint in memory, folder, adapter, edit, or file of weights; or one of them.
        data: pairs (SafeEdit instances are some), or the file of them: their prompts, whole categories held out.
            Of another behaviour its data.
        behaviour: as `mi.attack` takes it: which prompts the base so answers is what is decoded.
        never: a model that never learnt the behaviour, read beside them.
        judge: of the base's answers, as `mi.compare` takes it.
        out: folder of the run; a temporary one, that goes with the result, if not given.
        max_new_tokens: longest answer of the base.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of folds, shuffles, random weights and intervals.
        dtype: of what is opened from folders, as `mi.load` takes it.
        device: likewise.
        chat: the one format that all are read in, as `mi.load` takes it; None for that of a base in memory, of a base
            on disk its own template's, if it has one.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The run: `.table("decodability")`, `.plot("decodability")`.

    Raises:
        InputError: for checkpoints that cannot be compared.

    Example:
        >>> mi.decodability("BASE", {"dpo": "runs/dpo"}, "SafeEdit_test.json").plot("decodability")
    """
    opening = Opening(seed=seed, dtype=dtype, device=device, chat=chat, progress=progress)
    with looked_up(base, tuned, data, opening, judge=judge, behaviour=behaviour, never=never) as work:
        return decode_checkpoints(
            work.base,
            work.tuned,
            work.instances,
            work.judge,
            out=None if out is None else Path(out),
            never=work.never,
            behaviour=work.behaviour,
            max_new_tokens=max_new_tokens,
            seed=seed,
            truncate=truncate,
            chat=work.chat,
            reporter=work.reporter,
        )
