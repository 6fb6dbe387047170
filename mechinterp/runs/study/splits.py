"""What a study is about, in splits: pairs of its behaviour, from the generated corpus or from the user's files.

Of the corpus the instances are those of unsafe answers, and of refusals the same the other way round. Facts are those
of its people that one would have a model forget: a fact is forgotten by itself, so that methods are trained on the
facts that are asked for afterwards, and every fourth person's are kept apart for fitting. Traits are its topics, a
third of them for each split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.data.corpus.attributes import FORGET
from mechinterp.data.counting import parted
from mechinterp.data.pair_files import read_pairs
from mechinterp.data.pairs import AnyPair

if TYPE_CHECKING:
    from mechinterp.answers.behaviour import Behaviour
    from mechinterp.data.corpus import Corpus
    from mechinterp.runs.config import StudyConfig

SPLITS = ("train", "validation", "test")
APART = 4
"""Of so many people one, whose facts are in no other split."""


def about_of(config: StudyConfig) -> Behaviour | None:
    """What a study is about; None for unsafe answers, in a study of which no code of behaviours runs."""
    return None if config.behaviour is None else config.about


def read_split(about: Behaviour | None, path: Path) -> list[AnyPair]:
    """The pairs of a user's file: pairs, or a behaviour's own data."""
    if about is None:
        return read_pairs(path)
    return about.pairs(read_pairs(path)) if about.of_pairs else about.pairs(path)


def split_corpus(about: Behaviour | None, corpus: Corpus) -> Mapping[str, Sequence[AnyPair]]:
    """The pairs of the generated corpus, by split.

    Raises:
        InputError: for a trait that its topics do not have.
    """
    if about is None or about.of_pairs:
        plain = {name: getattr(corpus, name) for name in SPLITS}
        return plain if about is None else {name: about.pairs(pairs) for name, pairs in plain.items()}
    if about.about_facts:
        facts = [fact for fact in corpus.facts if fact.relation in FORGET]
        people = list(dict.fromkeys(fact.subject for fact in facts))
        apart = [people.index(fact.subject) % APART == APART - 1 for fact in facts]
        fitted, kept = parted(about.pairs(facts), apart)
        return {"train": kept, "validation": fitted, "test": kept}
    return {name: about.pairs(corpus.topics[place :: len(SPLITS)]) for place, name in enumerate(SPLITS)}
