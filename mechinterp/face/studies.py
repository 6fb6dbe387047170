"""The whole study in one call, and runs that are there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mechinterp.errors import InputError
from mechinterp.face.given import check_seed
from mechinterp.face.progress import watched
from mechinterp.runs.config import StudyConfig, default_folder, default_study, load_config
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.planning.plan import missing
from mechinterp.runs.study import Study


def reproduce(
    config: StudyConfig | str | Path | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    only: Collection[str] | None = None,
    progress: bool | None = None,
) -> RunFolder:
    """Run every stage of a study that is not up to date: checkpoints, tables, figures, report.

    Args:
        config: a study's YAML, or its settings; the embedded organism if not given.
        out: the run's folder; `runs/seedN`, or `runs/CONFIG-seedN`, if not given.
        seed: of every random choice.
        only: bring these stages up to date, and what they need, instead of all.
        progress: whether bars are shown; None: in a notebook or on a terminal.

    Returns:
        The run: `.verdict`, `.table(name)`, `.plot(name)`, `.report`.

    Raises:
        InputError: before any work, if something of yours that the config names is missing, or stands in the way.

    Example:
        >>> found = mi.reproduce(out="runs/seed0")
        >>> found.plot("erase_or_bypass")
    """
    check_seed(seed)
    settings = load_config(config) if isinstance(config, str | Path) else config or default_study()
    named = Path(config) if isinstance(config, str | Path) else None
    study = Study(settings, seed, Path(out) if out is not None else default_folder(named, seed))
    with watched(progress) as shown:
        if problems := missing(study):
            raise InputError("; ".join(problems))
        study.run(shown, only=only)
    return RunFolder.open(study.folder)


def open_run(path: str | Path) -> RunFolder:
    """Open what a study, a comparison, a relapse test or a benchmark left in a folder.

    Args:
        path: the folder.

    Returns:
        The run: `.verdict`, `.table(name)`, `.tables`, `.plot(name)`, `.figures`, `.report`.

    Raises:
        InputError: if there is no such folder, or no run in it.

    Example:
        >>> mi.open_run("runs/seed0").verdict
    """
    return RunFolder.open(path)


def open_study(path: str | Path) -> Study:
    """Open a study's folder for what its tables do not hold: checkpoints, judge, probe, instances.

    Args:
        path: the folder that `reproduce` wrote.

    Returns:
        The study: `.checkpoint(name)`, `.opened(name)`, `.judge`, `.probe`, `.instances(split)`.

    Raises:
        InputError: if there is no study in it.

    Example:
        >>> mi.open_study("runs/seed0").checkpoint("sft")
    """
    return Study.open(path)
