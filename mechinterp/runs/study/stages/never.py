"""Stage `never`: the vanilla model's twin, made as it was but of a corpus in which nothing unsafe is answered."""

from __future__ import annotations

from mechinterp.models.progress import Reporter
from mechinterp.runs.study.corpus import corpus_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.stages import teach, vanilla


def make(run: Run, reporter: Reporter) -> None:
    """The twin, which never learnt to answer unsafely."""
    if run.config.teach is None:
        vanilla.train(run, reporter, "never", never=True)
    else:
        teach.teach(run, reporter, "never", [one for one in corpus_of(run).exchanges if one.safe])
