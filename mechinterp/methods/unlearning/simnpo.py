"""SimNPO (Fan et al. 2024, arXiv 2410.07163): negative preference by mean log-probability, without a reference.

    loss = (2 / beta) softplus(beta m + gamma) on the answers to forget, m the mean log-probability of their tokens,
           + retain_weight x NLL on those to keep

Short and long answers count alike. As the paper is remembered; no released result was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from mechinterp.methods.method import Recipe
from mechinterp.methods.task import Task, Treatment
from mechinterp.methods.unlearning.losses import nll, simnpo
from mechinterp.methods.unlearning.organism import ORGANISM
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import Term
from mechinterp.methods.unlearning.unlearned import Learning, unlearned, work_of
from mechinterp.methods.work import Texts, Work
from mechinterp.models.checkpoints import Checkpoint


class SimNpoSettings(UnlearningSettings):
    """Settings of SimNPO."""

    beta: float = Field(2.5, gt=0)
    gamma: float = Field(0.0, ge=0, description="margin by which an answer should be unlikely")
    retain_weight: float = Field(1.0, ge=0)


def make_simnpo(checkpoint: Checkpoint, task: Task) -> Iterator[Treatment]:
    """One checkpoint in which some answers are unlikely, and others as likely as before."""
    return unlearned("simnpo", checkpoint, task, SimNpoSettings, _terms, keeps=_keeps)


def _keeps(settings: SimNpoSettings) -> bool:
    return settings.retain_weight > 0


def _terms(learning: Learning[SimNpoSettings]) -> Sequence[Term]:
    settings = learning.settings
    return [
        Term("forget", 1.0, learning.forget, simnpo(learning.forget, settings.beta, settings.gamma)),
        Term("retain", settings.retain_weight, learning.retain, nll(learning.retain)),
    ]


def _work(settings: SimNpoSettings, texts: Texts) -> Work:
    return work_of(settings, texts, sets=1 + _keeps(settings), references=0)


SIMNPO = Recipe(make_simnpo, SimNpoSettings, organism=ORGANISM, work=_work)
