"""Facts asked of a model: every prompt of theirs with its answer, teacher-forced, and what the model says by itself.

What is made of the answers: `scored_facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mechinterp.data.facts.fact import Asked, Fact
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.generation import answers_of, continue_tokens
from mechinterp.models.passes.sampling import sampled
from mechinterp.models.passes.teacher_forced import Forced, force
from mechinterp.models.passes.watching import Progress

TOP = 5
"""Fluency is of texts drawn from that many of the most probable tokens, as in the released code."""


@dataclass(frozen=True)
class Said:
    """What a model says by itself to a fact's prompt.

    Attributes:
        ids: of its greedy answer.
        text: the same in words.
        drawn: another answer, each token drawn from the `TOP` most probable ones.
    """

    ids: tuple[int, ...]
    text: str
    drawn: str


@dataclass(frozen=True)
class FactAnswers:
    """A fact as a model answers it; None, or nothing, where the fact has none.

    Attributes:
        target: of the new answer.
        truth: of the answer before.
        rephrased: of the answer that should come, to the prompt in other words.
        portability, locality: by kind.
        said: None where nothing was to be said.
    """

    target: Forced | None = None
    truth: Forced | None = None
    rephrased: tuple[Forced, ...] = ()
    portability: Mapping[str, tuple[Forced, ...]] = field(default_factory=dict)
    locality: Mapping[str, tuple[Forced, ...]] = field(default_factory=dict)
    said: Said | None = None


def ask_facts(
    checkpoint: Checkpoint,
    facts: Sequence[Fact],
    *,
    max_new_tokens: int | None = None,
    seed: int = 0,
    truncate: bool = False,
    max_batch: int = 256,
    progress: Progress | None = None,
) -> list[FactAnswers]:
    """Ask all that facts ask; a prompt with an answer that several of them have is read once.

    Args:
        checkpoint: the model; left as it was.
        facts: any number of them; of an edit those that it was made for.
        max_new_tokens: of the answers that it says by itself; none are said if not given.
        seed: of those that are drawn.
        truncate: cut prompts that exceed the context from the left instead of raising.
        max_batch: sequences per batch; it changes nothing but rounding.
        progress: called with (texts done, texts in all).

    Returns:
        In the order of the facts.

    Raises:
        InputError: for a text that is too long.
    """
    wanted = list(dict.fromkeys(asked for fact in facts for asked in asked_of(fact)))
    prompts, answers = [prompt for prompt, _ in wanted], [answer for _, answer in wanted]
    read = force(checkpoint, prompts, answers, truncate=truncate, max_batch=max_batch, progress=progress)
    forced = dict(zip(wanted, read, strict=True))
    said: Sequence[Said | None] = [None] * len(facts)
    if max_new_tokens is not None:
        said = say(checkpoint, [fact.text for fact in facts], max_new_tokens=max_new_tokens, seed=seed, cut=truncate)
    return [_answered(fact, forced.__getitem__, spoken) for fact, spoken in zip(facts, said, strict=True)]


def asked_of(fact: Fact) -> list[Asked]:
    """All prompts of a fact with the answers that are read after them."""
    kinds = [*fact.portability.values(), *fact.locality.values()]
    own = [(fact.text, answer) for answer in (fact.target_new, fact.ground_truth) if answer]
    return [*own, *((text, fact.answer) for text in fact.rephrasings), *(pair for pairs in kinds for pair in pairs)]


def say(checkpoint: Checkpoint, prompts: Sequence[str], *, max_new_tokens: int, seed: int, cut: bool) -> list[Said]:
    """What a model says to prompts, the most probable answer and one that is drawn; each prompt once."""
    unique = list(dict.fromkeys(prompts))
    heads = as_fed(
        checkpoint,
        unique,
        reserve=max_new_tokens,
        truncate=cut,
    )
    greedy = continue_tokens(checkpoint, heads, max_new_tokens=max_new_tokens)
    drawn = [one for (one,) in sampled(checkpoint, heads, 1, top=TOP, max_new_tokens=max_new_tokens, seed=seed)]
    texts = zip(answers_of(checkpoint, greedy), answers_of(checkpoint, drawn), strict=True)
    found = {
        prompt: Said(tuple(whole.ids[whole.prompt_length :]), text, other)
        for prompt, whole, (text, other) in zip(unique, greedy, texts, strict=True)
    }
    return [found[prompt] for prompt in prompts]


def _answered(fact: Fact, forced: Callable[[Asked], Forced], said: Said | None) -> FactAnswers:
    return FactAnswers(
        target=forced((fact.text, fact.target_new)) if fact.target_new else None,
        truth=forced((fact.text, fact.ground_truth)) if fact.ground_truth else None,
        rephrased=tuple(forced((text, fact.answer)) for text in fact.rephrasings),
        portability={kind: tuple(map(forced, pairs)) for kind, pairs in fact.portability.items()},
        locality={kind: tuple(map(forced, pairs)) for kind, pairs in fact.locality.items()},
        said=said,
    )
