"""Gradient ascent: minus the loss of fine-tuning, on the answers to forget (Jang et al. 2023, arXiv 2210.01504).

Nothing bounds it: it goes on pushing answers down that are gone, and takes what is around them along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.losses import nll
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class GaSettings(UnlearningSettings):
    """Settings of gradient ascent."""


def ga(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint that was driven away from the answers to forget; nothing is kept on purpose."""
    return unlearned("ga", checkpoint, task, GaSettings, _terms, keeps=lambda settings: False)


def _terms(learning: Learning[GaSettings]) -> Sequence[Term]:
    return [Term("forget", -1.0, learning.forget, nll(learning.forget))]


def _work(settings: GaSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=1, references=0)


GA = Recipe(ga, GaSettings, organism=ORGANISM, work=_work)
