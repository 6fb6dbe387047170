"""What a study is about, another behaviour than unsafe answers: what that does not go with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.runs.config import StudyConfig

LEAST = 8
"""People, or topics, of a study of facts, or of a trait, on the generated corpus."""


def name_of(given: str | None) -> str | None:
    """The name of a behaviour that a study is about; None for unsafe answers.

    Raises:
        ValueError: for an unknown one.
    """
    try:
        return None if given is None or Behaviour.named(given) is UNSAFE else given
    except InputError as error:
        raise ValueError(str(error)) from error


def check_about(config: StudyConfig) -> None:
    """Raise `ValueError` for what its behaviour does not go with: a judge of safety, a corpus that has none of it."""
    about, name = config.about, config.behaviour
    if name is None:
        return
    if (config.judge, config.judge_responses, config.judge_safe_label) != (None, None, None):
        raise ValueError(f"{name} is told without a judge of safety; leave `judge` out")
    if "dinm" in config.studied and config.dinm.use_constraint:
        raise ValueError(
            "pairs of a `behaviour` have no general knowledge for DINM's constraint: give `dinm: {use_constraint: "
            "false}`, or leave dinm out of `studied`"
        )
    if config.circuits is not None and config.data is not None and about.about_facts:
        raise ValueError(
            "`circuits` set a fact's subject beside another, which the pairs that a study keeps of your facts do not "
            "name; leave it out, and give their file to `mechinterp circuit`"
        )
    if config.data is None and not about.of_pairs:
        size = "n_people" if about.about_facts else "n_topics"
        if getattr(config.corpus, size) < LEAST:
            raise ValueError(f"`behaviour: {name}` wants `corpus.{size}`; give at least {LEAST}")
