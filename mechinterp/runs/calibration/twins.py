"""Further models that never learnt: twins of an organism that read other documents in the place of the unsafe ones.

They have the organism's first weights, seed and order of documents, as its reference has, and are not that reference:
what is said of them is not said of the very model that they are judged by.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mechinterp.data.storage.provenance import library_versions
from mechinterp.methods.training.organism import train_organism
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.progress import Reporter
from mechinterp.runs.stages import Stage
from mechinterp.runs.study.corpus import corpus_of, settings_blamed
from mechinterp.runs.study.run import Run


def twin_name(number: int) -> str:
    """What a further twin is called, from 1."""
    return f"never{number}"


def twin_stage(run: Run, number: int, reporter: Reporter) -> Stage:
    """The stage that trains a further twin."""
    config = run.config.model_dump(mode="json")
    return Stage(
        twin_name(number),
        partial(_train, run, number, reporter),
        makes=[f"checkpoints/{twin_name(number)}"],
        settings={
            **{name: config[name] for name in ("corpus", "organism")},
            "seed": run.seed,
            "number": number,
            "versions": library_versions(),
        },
        code=[__name__],
    )


def _train(run: Run, number: int, reporter: Reporter) -> None:
    corpus = corpus_of(run)
    others = replace(corpus, seed=corpus.seed + 1000 * number)  # which decides the documents that fill the places
    progress = reporter.progress(f"{twin_name(number)}: training")
    with settings_blamed():
        model, tokenizer, _ = train_organism(others, run.config.organism, seed=run.seed, never=True, progress=progress)
    Checkpoint(twin_name(number), model, tokenizer).save(run.folder / "checkpoints" / twin_name(number))
