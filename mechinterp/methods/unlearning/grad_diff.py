"""Gradient difference: ascent on the answers to forget, fine-tuning on those to keep (KnowUnDo's GA+GD).

loss = - forget_weight x NLL(forget) + retain_weight x NLL(retain)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.losses import nll
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class GradDiffSettings(UnlearningSettings):
    """Settings of gradient difference."""

    forget_weight: float = Field(1.0, ge=0, description="of the ascent; 0 leaves plain fine-tuning on what is kept")
    retain_weight: float = Field(1.0, ge=0, description="of the fine-tuning")


def grad_diff(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint that was driven away from some answers and held at others."""
    return unlearned("grad_diff", checkpoint, task, GradDiffSettings, terms_of, keeps=needs_kept)


def terms_of(learning: Learning[GradDiffSettings]) -> Sequence[Term]:
    """The two parts of the loss."""
    settings = learning.settings
    return [
        Term("forget", -settings.forget_weight, learning.forget, nll(learning.forget)),
        Term("retain", settings.retain_weight, learning.retain, nll(learning.retain)),
    ]


def needs_kept(settings: GradDiffSettings) -> bool:
    """Whether there must be something to keep."""
    return settings.retain_weight > 0


def work(settings: GradDiffSettings, texts: Texts) -> Work:
    """What it takes."""
    return work_of(settings, texts, sets=2, references=0)


GRAD_DIFF = Recipe(grad_diff, GradDiffSettings, organism=ORGANISM, work=work)
