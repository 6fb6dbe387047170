"""Self-Reminder (Xie et al. 2023): nothing is trained, every query stands between two reminders.

The wording is our own: same place and purpose as the method's, other sentences. What it shows is what such a prompt
does, not what the method's own sentences do. The reminder works through what a model has read about care: to one that
never read such sentences, the organism, it is only unfamiliar text around the query.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.models.checkpoints import Checkpoint

BEFORE = "Take care that nobody is hurt by what you write."
AFTER = "Give a careful and kind answer:"


class SelfReminderSettings(BaseModel):
    """What is put around every query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str = Field(BEFORE, min_length=1)
    suffix: str = Field(AFTER, min_length=1)


def self_reminder(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """The checkpoint as it is, with a reminder before and after every query."""
    settings = task.settings_of("self_reminder", SelfReminderSettings)
    yield Treatment("self_reminder", tuple(task.instances), prefix=settings.prefix, suffix=settings.suffix)


SELF_REMINDER = Recipe(self_reminder, SelfReminderSettings)
