"""What makes each stage of a study start again, as two Markdown tables: by setting, and by stage.

python analyses/stages.py
"""

import argparse
from pathlib import Path

from mechinterp.data.storage.provenance import modules_of
from mechinterp.models.progress import Silent
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.sections import ChatSettings
from mechinterp.runs.stages import Stage, following
from mechinterp.runs.study import Study

DECIDING = (
    *("behaviour", "model", "data", "judge", "judge_responses", "judge_safe_label"),
    *("teach", "never", "comments", "dinm_rates", "attack", "decode", "circuits"),
)
"""Settings that decide which files are read, or which stages there are."""


def by_setting(stages: list[Stage]) -> list[str]:
    """The stages that start again, at most, after a change of a setting; settings with the same effect in one row."""
    rows: dict[str, list[str]] = {}
    for name in (*StudyConfig.model_fields, "comparison.top_neurons", "seed"):
        if name not in DECIDING:
            first = {stage.name for stage in stages if any(_touches(name, own) for own in stage.settings)}
            rows.setdefault(", ".join(following(stages, first)), []).append(f"`{name}`")
    lines = [
        f"| {', '.join(names)} | {'all' if again.startswith('data') else again} |" for again, names in rows.items()
    ]
    return ["| changed | starts again, at most |", "| --- | --- |", *lines]


def by_stage(stages: list[Stage]) -> list[str]:
    """What each stage reads, its settings, and how many modules its code is."""
    lines = ["| stage | reads | settings | modules |", "| --- | --- | --- | --- |"]
    for stage in stages:
        settings = "all" if stage.name == "report" else ", ".join(dict.fromkeys(stage.settings))
        lines.append(f"| {stage.name} | {', '.join(stage.needs)} | {settings} | {len(modules_of(*stage.code))} |")
    return lines


def _touches(name: str, own: str) -> bool:
    """Whether a setting is one that a stage has, or a part of one, or has it as a part."""
    return (
        name == own or name.startswith(f"{own}.") or (own.startswith(f"{name}.") and name != "comparison.top_neurons")
    )


def main() -> None:
    """Print both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    config = StudyConfig().model_copy(update={"chat": ChatSettings()})  # of plain text nothing depends on it
    stages = Study(config, 0, Path("nowhere")).stages(Silent())
    print("\n".join([*by_setting(stages), "", *by_stage(stages)]))  # noqa: T201 - a script, not the library


if __name__ == "__main__":
    main()
