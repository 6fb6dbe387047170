"""Stage `vanilla`: the organism, trained on the corpus; there is none where the user has a model."""

from __future__ import annotations

from mechinterp.methods.training.organism import train_organism
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.corpus import corpus_of, settings_blamed
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The vanilla model."""
    corpus, progress = corpus_of(run), reporter.progress("organism: training")
    with settings_blamed():
        model, tokenizer, _ = train_organism(corpus, run.config.organism, seed=run.seed, progress=progress)
    Checkpoint("vanilla", model, tokenizer).save(run.folder / "checkpoints" / "vanilla")
