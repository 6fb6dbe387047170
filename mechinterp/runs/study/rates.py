"""The learning rate of a run's edits: the config's, or the one that the stage `rates` chose."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from mechinterp.runs.study.run import Run


def with_chosen_rate(run: Run, settings: Mapping[str, BaseModel]) -> Mapping[str, BaseModel]:
    """Settings of methods by name, those of dinm with the chosen learning rate."""
    if run.config.dinm_rates is None or "dinm" not in settings:
        return settings
    tried = run.table("dinm_rates")
    (rate,) = tried.loc[tried["chosen"], "learning_rate"]
    return {**settings, "dinm": settings["dinm"].model_copy(update={"learning_rate": float(rate)})}
