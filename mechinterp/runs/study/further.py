"""What not every study has: a taught model, a twin, a second probe, a chosen rate, attacks, decoding, circuits."""

from __future__ import annotations

from mechinterp.data.comments import read_comments
from mechinterp.models.sources import Source
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.study.run import Run

FURTHER = ("taught", "probes", "rates", "attack", "decode", "circuits")
"""Stages that not every study has; their tables are optional ones."""

_SETTINGS = ("behaviour", "chat", "teach", "never", "comments", "dinm_rates", "decode", "circuits")


def listed(run: Run) -> list[str]:
    """The settings that the page lists: those that not every study has where this one has them."""
    absent = {name for name in _SETTINGS if getattr(run.config, name) in (None, False)}
    absent |= set() if run.config.attack.attacks else {"attack"}
    return [name for name in StudyConfig.model_fields if name not in absent]


def left_out(run: Run) -> set[str]:
    """The stages that a study has no use for."""
    config, found = run.config, set[str]()
    if config.model is not None or config.teach is not None:
        found |= {"vanilla"}
    if config.teach is None:
        found |= {"teach", "taught"}
    if config.model is not None or not config.has_never:
        found |= {"never"}
    if config.comments is None:
        found |= {"probes"}
    if not config.attack.attacks:
        found |= {"attack"}
    if not config.decode:
        found |= {"decode"}
    if config.circuits is None:
        found |= {"circuits"}
    return found if config.dinm_rates is not None else found | {"rates"}


def check_further(config: StudyConfig) -> None:
    """Raise `InputError` if the model that is taught, one that never learnt or the real comments are not there."""
    for given in (config.teach and config.teach.base, config.never):
        if isinstance(given, str):
            Source.find(given)
    if (real := config.comments) is not None:
        read_comments(real.file, text_column=real.text_column, label_column=real.label_column)
