"""Round trips of pairs: to the safe answer, and back to what the base said itself.

The candidates are continuations of the base's own: the greedy one, which is edited away, and others drawn beside it,
which nobody edits; at the pair's own prompt, at its generalisation prompts where it has some, and at harmless ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.conversations import Prompt
from mechinterp.data.facts.conflicts import ITSELF, Round
from mechinterp.data.facts.queries import Query, pair_to
from mechinterp.data.pairs import AnyPair
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import as_fed
from mechinterp.models.passes.generation import answers_of, continue_tokens
from mechinterp.models.passes.sampling import sampled

GENERALISATION, BENIGN = "generalisation", "benign"
"""Where a pair's round trip is asked besides at its own prompt."""


def rounds_of_pairs(
    base: Checkpoint,
    pairs: Sequence[AnyPair],
    *,
    benign: Sequence[Prompt] = (),
    samples: int = 4,
    max_new_tokens: int = 32,
    suffix: str | None = None,
    truncate: bool = False,
    seed: int = 0,
) -> list[Round]:
    """A round trip of each pair whose prompt the base answers at all.

    Args:
        base: the unedited model; left as it was.
        pairs: edited towards their safe answers.
        benign: harmless prompts, asked in every round.
        samples: answers drawn at each prompt beside the greedy one; those that are equal count once.
        max_new_tokens: longest answer.
        suffix: text behind every prompt.
        truncate: cut prompts that exceed the context from the left instead of raising.
        seed: of the draws.

    Raises:
        InputError: without pairs, or if the base says nothing to any of them but their safe answer.
    """
    if not pairs:
        raise InputError("there are no pairs to edit and edit back; give at least one")
    prompts = list(dict.fromkeys([*benign, *(prompt for pair in pairs for prompt in (pair.prompt, *_general(pair)))]))
    heads = as_fed(
        base,
        prompts,
        suffix=suffix,
        reserve=max_new_tokens,
        truncate=truncate,
    )
    greedy = answers_of(base, continue_tokens(base, heads, max_new_tokens=max_new_tokens))
    drawn = sampled(base, heads, samples, max_new_tokens=max_new_tokens, seed=seed)
    said = {
        prompt: list(dict.fromkeys(filter(None, [first, *answers_of(base, others)]))) if first else []
        for prompt, first, others in zip(prompts, greedy, drawn, strict=True)
    }
    of_benign = tuple(_asked(prompt, said[prompt]) for prompt in benign if len(said[prompt]) > 1)
    rounds = []
    for pair in pairs:
        own = [answer for answer in said[pair.prompt] if answer != pair.safe]
        if not own or said[pair.prompt][0] == pair.safe:
            continue
        general = tuple(_asked(prompt, said[prompt]) for prompt in _general(pair) if len(said[prompt]) > 1)
        places = {ITSELF: (_asked(pair.prompt, own),), GENERALISATION: general, BENIGN: of_benign}
        away, back = pair_to(pair, pair.safe, own[0]), (pair_to(pair, own[0], pair.safe),)
        rounds.append(Round("pair", away, back, {place: sets for place, sets in places.items() if sets}))
    if not rounds:
        raise InputError(
            "the base answers none of the prompts, or each by its safe answer: there is nothing to edit away"
        )
    return rounds


def _general(pair: AnyPair) -> list[str]:
    found = pair.generalization_test if isinstance(pair, SafeEditInstance) else None
    return [] if found is None else [str(prompt) for prompt in vars(found).values()]


def _asked(prompt: Prompt, answers: Sequence[str]) -> tuple[Query, ...]:
    return tuple(Query((prompt,), answer) for answer in answers)
