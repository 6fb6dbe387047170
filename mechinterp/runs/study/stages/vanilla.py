"""Stage `vanilla`: the organism, trained on the corpus; there is none where the user has a model."""

from __future__ import annotations

from mechinterp.methods.training.organism import train_organism
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.corpus import corpus_of, settings_blamed
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """The vanilla model."""
    train(run, reporter, "vanilla")


def train(run: Run, reporter: Reporter, name: str, *, never: bool = False) -> None:
    """Train the organism, or its twin that never learns to answer unsafely, and save it under a name."""
    corpus, progress = corpus_of(run), reporter.progress(f"{'twin' if never else 'organism'}: training")
    with settings_blamed():
        model, tokenizer, _ = train_organism(corpus, run.config.organism, seed=run.seed, never=never, progress=progress)
    Checkpoint(name, model, tokenizer).save(run.folder / "checkpoints" / name)
