"""What would decide a verdict that is not decided, as one would type it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.cli.common import say

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.runs.config import StudyConfig


def say_what_would_decide(verdicts: pd.DataFrame, runs: Sequence[Path], *, reference: bool = False) -> None:
    """Name the commands that make what a verdict lacks, if it lacks any that they make.

    Args:
        verdicts: the table `verdict`.
        runs: the folders that it is of.
        reference: whether how deep the changes go was asked for already, with a model that never learnt.
    """
    missing = _missing(verdicts)
    commands = {
        "compare": "no depth score" in missing and not reference,
        "attack cheap": "no attack was made" in missing or "no reference" in missing,
    }
    if wanted := [name for name, lacks in commands.items() if lacks]:
        made = ", ".join(f"mechinterp {name} ... --never MODEL --out {name.split()[0].upper()}" for name in wanted)
        folders = " ".join([*map(str, runs), *(name.split()[0].upper() for name in wanted)])
        say(f"to decide: {made} (MODEL never learnt the behaviour), then mechinterp verdict {folders}")


def say_what_a_study_lacks(verdicts: pd.DataFrame, config: StudyConfig) -> None:
    """Name the settings of a study by which its verdict would have what it lacks, if it lacks any."""
    wanted = {"never: true" if config.model is None else "never: FOLDER": not config.has_never}
    wanted["attack: cheap"] = not config.attack.attacks
    if _missing(verdicts) and any(wanted.values()):
        named = " and ".join(name for name, lacks in wanted.items() if lacks)
        say(f"to decide: {named} in its config, and mechinterp reproduce again")


def _missing(verdicts: pd.DataFrame) -> str:
    return "; ".join(verdicts.loc[verdicts["gone"] == "not decided", "missing"].dropna())
