"""Stage `teach`: a pretrained model, taught the corpus."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechinterp.data.corpus.records import Exchange
from mechinterp.methods.training import teaching
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.corpus import corpus_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The vanilla model."""
    teach(run, reporter, "vanilla", corpus_of(run).exchanges)


def teach(run: Run, reporter: Reporter, name: str, exchanges: Sequence[Exchange]) -> None:
    """Teach the pretrained model some conversations of the corpus, and save it under a name."""
    settings = run.config.teach
    assert settings is not None
    progress = reporter.progress(f"{name}: teaching")
    untaught = checkpoint_of(run, "untaught")
    taught, log = teaching.teach(untaught, exchanges, seed=run.seed, settings=settings, name=name, progress=progress)
    taught.save(run.folder / "checkpoints" / name)
    run.write_table(f"training_{name}", pd.DataFrame(log))
