"""The corpus that a study without data of its own generates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mechinterp.data.corpus import Corpus, generate_corpus
from mechinterp.errors import InputError
from mechinterp.runs.study.run import Run


def corpus_of(run: Run) -> Corpus:
    """The generated corpus.

    Raises:
        InputError: if its settings do not go together.
    """
    with settings_blamed():
        return generate_corpus(seed=run.seed, **run.config.corpus.model_dump())


@contextmanager
def settings_blamed() -> Iterator[None]:
    """Settings of the organism that do not go together are the user's mistake."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise InputError(f"the organism cannot be made with these settings: {error}") from error
