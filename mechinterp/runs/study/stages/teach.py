"""Stages `teach` and `never`: a pretrained model taught the corpus, and a twin taught it without what is unsafe."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechinterp.data.corpus.records import Exchange
from mechinterp.methods.training.teaching import teach
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.corpus import corpus_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The vanilla model."""
    _taught(run, reporter, "vanilla", corpus_of(run).exchanges)


def make_never(run: Run, reporter: Reporter) -> None:
    """The twin, which never learnt to comply."""
    _taught(run, reporter, "never", [one for one in corpus_of(run).exchanges if one.safe])


def _taught(run: Run, reporter: Reporter, name: str, exchanges: Sequence[Exchange]) -> None:
    settings = run.config.teach
    assert settings is not None
    progress = reporter.progress(f"{name}: teaching")
    untaught = checkpoint_of(run, "untaught")
    taught, log = teach(untaught, exchanges, seed=run.seed, settings=settings, name=name, progress=progress)
    taught.save(run.folder / "checkpoints" / name)
    run.write_table(f"training_{name}", pd.DataFrame(log))
